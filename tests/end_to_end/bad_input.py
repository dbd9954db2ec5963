"""What users get wrong, and what they must be told. Each line: the command line, and what its one line of error says.

`optexp` reads the words as a shell would. In the folder there are a file named `file` and a config folder `mine`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

FILES = {
    "file": "",
    "mine/optimizer/mine.yaml": "# a package nobody trusts yet\n_target_: mine.Optimizer\nlr: 0.1\n",
    "mine/optimizer/misspelled.yaml": "# misspelled\n_target_: optexp.schedules.Cosin\nlr: 0.1\n",
    "mine/experiment/forgot.yaml": "# no package line\noptimizer:\n  lr: 3\n",
    "mine/experiment/trusting.yaml": "# @package _global_\n# trusts by itself\ntrust: [mine]\n",
    "mine/experiment/broken.yaml": "# @package _global_\n# no YAML\nseed: [1\n",
    "mine/experiment/grid.yaml": "# @package _global_\n# a grid\n"
    + yaml.dump({"hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"optimizer.lr": "0.1,-2"}}}}),
}


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


WITHOUT_TORCH: dict[str, str] = {
    # names
    "optimiser=adam": "optimiser=adam: no such key or group (did you mean 'optimizer'?); there are dataset, engine,",
    "optimizer=adamm": "optimizer=adamm: no such optimizer (did you mean 'adam'?); choose one of adadelta,",
    "dataset=digit": "dataset=digit: no such dataset (did you mean 'digits'?)",
    "+experiment=nope": "experiment=nope: no such experiment; choose one of cnn_sgd, exp1_adam_B32,",
    "experiment=null": "experiment=null: choose one of",
    "task=trian": "task=trian: no such task (did you mean 'train'?); choose one of attribute, audit, line_fit,",
    "task.name=other": "task.name=other: no such task; there are ",
    "~optimizer": "optimizer: nothing is chosen; a run needs optimizer=…",
    "~task": "task: nothing is chosen",
    "optimizer.lrr=0.1": "optimizer.lrr=0.1: optimizer=sgd takes no 'lrr' (did you mean 'lr'?); it takes lr, momentum,",
    "engine.max_step=3": "engine.max_step=3: engine=default takes no 'max_step' (did you mean 'max_steps'?)",
    "+engine.stop=3": "engine.stop=3: no such key; there are epochs, max_steps,",
    "+momentum=0.9": "momentum=0.9: no such key; there are model, dataset,",
    "model=mlp model.depth=3": "model.depth=3: model=mlp takes no 'depth'; it takes hidden",
    "+schedule.T=3": "schedule.T=3: Cosine takes no 'T'",
    # types and ranges
    "engine.epochs=abc": "engine.epochs=abc: allowed is a finite number > 0 or null",
    "engine.epochs=0": "engine.epochs=0: allowed is a finite number > 0 or null",
    "engine.max_steps=1.5": "engine.max_steps=1.5: allowed is an integer ≥ 1 or null",
    "engine.epochs=null": "engine.epochs=null and engine.max_steps=null: one of them",
    "engine.eval_every=0": "engine.eval_every=0: allowed are a number of steps (100) or of epochs (1epoch, 0.5epochs)",
    "engine.checkpoint_every=often": "engine.checkpoint_every=often: allowed are",
    "engine.precision=fp8": "engine.precision=fp8: allowed is one of fp32, bf16, fp16",
    "engine.device=gpu": "engine.device=gpu: allowed is one of auto, cpu, cuda, mps",
    "engine.accumulate=0": "engine.accumulate=0: allowed is an integer ≥ 1",
    "engine.clip_norm=-1": "engine.clip_norm=-1: allowed is a finite number > 0 or null",
    "engine.label_smoothing=1": "engine.label_smoothing=1: allowed is a finite number in [0, 1)",
    "dataset.batch_size=0": "dataset.batch_size=0: allowed is an integer ≥ 1 or full",
    "seed=-1": "seed=-1: allowed is an integer in [0,",
    "output_dir=": "output_dir=: allowed is the name of a folder",
    "trust=mine": "trust=mine: allowed is a list, each a string",
    "optimizer.lr=-1": "optimizer.lr=-1: allowed is a finite number ≥ 0",
    "optimizer.lr=nan": "optimizer.lr=nan: allowed is a finite number ≥ 0",
    "optimizer.lr=inf": "optimizer.lr=inf: allowed is a finite number ≥ 0",
    "optimizer.lr=1e400": "optimizer.lr=inf: allowed is a finite number ≥ 0",
    "optimizer.lr=fast": "optimizer.lr=fast: allowed is a finite number ≥ 0",
    "optimizer.lr=null": "optimizer.lr=null: allowed is a finite number ≥ 0",
    "optimizer.lr=[0.1]": "optimizer.lr=[0.1]: allowed is a finite number ≥ 0",
    "optimizer.nesterov=1": "optimizer.nesterov=1: allowed is true or false",
    "optimizer=adam optimizer.betas=[0.9,1.0]": "optimizer.betas=[0.9, 1.0]: allowed is a list, each a finite number",
    # rules between keys
    "optimizer.nesterov=true optimizer.dampening=0.5": "optimizer.nesterov=true: needs optimizer.dampening=0, but it",
    "optimizer.nesterov=true optimizer.momentum=0": "optimizer.nesterov=true: needs optimizer.momentum > 0, but it i",
    "optimizer.differentiable=true": "optimizer.differentiable=true: a training step updates in place; allowed is fa",
    "optimizer.foreach=true optimizer.fused=true": "optimizer.foreach=true and optimizer.fused=true: choose one",
    "schedule.warmup_steps=5 schedule.warmup_fraction=0.1": "schedule.warmup_fraction=0.1: excludes schedule.warmup_",
    "schedule=step schedule.gamma=0": "schedule.gamma=0: ",
    # what has no value yet, or refers to nothing
    "dataset=imagefolder": "dataset.root must be set: add dataset.root=… to the command line",
    "dataset=text": "dataset.path must be set: add dataset.path=…",
    "name=${nowhere}": "name: Interpolation key 'nowhere' not found",
    # code and files of the user's own
    "schedule._target_=optexp.schedules.Cosin": "optexp.schedules has no 'Cosin' (did you mean 'Cosine'?)",
    "--config-dir mine experiment=forgot": "experiment: its file must begin with the line '# @package _global_'",
    "--config-dir mine experiment=trusting": "trust=['mine']: is set in a file; allowed is the command line only",
    "--config-dir mine experiment=broken": "mine/experiment/broken.yaml",
    "--config-dir nowhere": "--config-dir nowhere: no such folder",
    "--config-dir file": "--config-dir file: no such folder",
    # sweeps
    "optimizer.lr=0.1,0.2": "optimizer.lr=0.1,0.2: several values make a sweep; add -m",
    "optimizer=sgd,adam": "optimizer=sgd,adam: several values make a sweep; add -m",
    "-m optimizer.lr=0.1,abc": "optimizer.lr=abc: allowed is a finite number ≥ 0 (member optimizer.lr=abc)",
    "-m optimizer=sgd,adamm": "optimizer=adamm: no such optimizer (did you mean 'adam'?)",
    "-m optimizer.lrr=0.1,0.2": "optimizer.lrr=0.1: optimizer=sgd takes no 'lrr'",
    "-m seed=range(3,3)": "seed=range(3,3): stands for no value at all, so the sweep has no members",
    "-m seed=1,2 hydra/launcher=nope": "hydra/launcher=nope: no such hydra/launcher; choose one of basic",
    "--config-dir mine experiment=grid": "optimizer.lr=-2: allowed is a finite number ≥ 0 (member optimizer.lr=-2",
    # words and flags
    "train": "'train' is neither a verb (runs, compare, diagnose, ledger, report, export, resume, rerun, studies)",
    "resum": "nor an override key=value (did you mean 'resume'?)",
    "=3": "'=3' is neither a verb",
    "optimizer.lr==3": "optimizer.lr==3: cannot be read as key=value",
    "optimizer.lr=[0.1": "optimizer.lr=[0.1: cannot be read as key=value",
    "+optimizer.lr=2": "+optimizer.lr=2: the key exists already; write optimizer.lr=… to change it",
    "~optimizer.nothing": "~optimizer.nothing: there is no such key to drop",
    "~optimizer.lr=3": "~optimizer.lr=3: cannot be dropped, because optimizer.lr is 0.05",
    "--frob": "unrecognized arguments: --frob; see optexp --help",
    "--cfg": "argument --cfg/-c: expected one argument; see optexp --help",
    "--cfg everything": "argument --cfg/-c: invalid choice: 'everything'",
    "--cfg job optimizer=adamm": "optimizer=adamm: no such optimizer",
    "--cfg job -m seed=1,2": "--cfg and --info show one run: leave out -m and give every key one value",
    "--info everything": "argument --info/-i: invalid choice: 'everything'",
    "--resolve": "--resolve: says how --cfg prints; add --cfg job",
    "hydra.job.number=3": "hydra.job.number=3: hydra.job takes no 'number'",
    # verbs
    "runs nowhere": "nowhere: no such folder",
    "compare": "the following arguments are required: DIR; see optexp compare --help",
    "compare nowhere": "nowhere: no such folder",
    "export mine": "the following arguments are required: --csv; see optexp export --help",
    "export mine --csv out.csv": "mine: holds no runs",
    "resume": "the following arguments are required: DIR; see optexp resume --help",
    "resume nowhere": "nowhere: no such folder",
    "resume mine": "mine: is not a run directory (it holds no run.json)",
    "resume mine --frob": "unrecognized arguments: --frob; see optexp resume --help",
    "rerun mine": "mine: is not a run directory (it holds no run.json)",
}

WITH_TORCH: dict[str, str] = {
    "dataset.batch_size=5000": "dataset.batch_size=5000: digits has 1257 training samples; allowed are 1 to 1257, or",
    "engine.accumulate=64": "engine.accumulate=64: a batch of 32 cannot be split into more parts",
    "dataset=cifar10 dataset.download=false dataset.root=gone": "dataset.root=gone: ",
    "dataset=mnist dataset.download=false dataset.root=gone": "dataset.root=gone: ",
    "dataset=text dataset.path=gone.txt": "dataset.path=gone.txt: ",
    "dataset=imagefolder dataset.root=gone": "dataset.root=gone: ",
    "dataset.val_fraction=0.9": "dataset.val_fraction=0.9",
    "output_dir=file/x": "output_dir: cannot create a run directory in file/x/runs/",
    "-m seed=1,2 output_dir=file/x": "output_dir: cannot create a run directory in file/x/sweeps/",
    "hydra.run.dir=file/x": "hydra.run.dir=file/x: cannot be created (Not a directory)",
    "hydra.run.dir=": "hydra.run.dir=: allowed is the name of a folder",
    "experiment=exp2_sgd_B32 optimizer=adam ~optimizer.momentum": "optimizer.dampening=0.9: Adam takes no 'dampening' "
    "(set by experiment=exp2_sgd_B32; ~optimizer.dampening drops it)",
    "+optimizer.rho=1": "optimizer.rho=1: SGD takes no 'rho'; it takes lr, momentum,",
    "+model.depht=1": "model.depht=1: ResNet takes no 'depht' (did you mean 'depth'?)",
    "model.width=wide": "model.width=wide: allowed is an integer",
    "model.depth=9": "model.depth=9: ",
    "optimizer=adam optimizer.betas=[0.9]": "optimizer.betas=[0.9]: allowed is a list of a finite number and a finit",
    "optimizer._target_=os.system": "'os' is not trusted; allowed are torch, torchvision, pytorch_optimizer, ",
    "optimizer._target_=torch.optim.SDG": "torch.optim has no 'SDG' (did you mean 'SGD'?)",
    "optimizer._target_=torch.nn.Linear": "optimizer._target_=torch.nn.Linear: is not a torch.optim.Optimizer",
    "--config-dir mine optimizer=mine": "optimizer._target_=mine.Optimizer: 'mine' is not trusted; ",
    "--config-dir mine optimizer=misspelled": "optexp.schedules has no 'Cosin'",
    "model=transformer": "model=transformer",
    "model=torchvision model.name=resnet19": "model.name=resnet19: ",
    "schedule.warmup_steps=100000": "schedule.warmup_steps=100000: ",
    "engine.init_from=gone": "engine.init_from=gone: ",
    "-m model=mlp,transformer": "model=transformer",
    "-m dataset.batch_size=32,5000": "dataset.batch_size=5000: digits has 1257",
    "-m schedule.warmup_steps=10,100000": "schedule.warmup_steps=100000: longer than the run of 197 steps",
    "-m optimizer=adam optimizer.betas=[0.9,0.99],[0.9]": "optimizer.betas=[0.9]: allowed is a list of",
    "-m seed=1,2 hydra.sweep.subdir=${seed}": "hydra.sweep.subdir: members are named by what is swept",
}
