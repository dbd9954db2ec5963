"""`optexp studies`: list the studies with their questions."""

from __future__ import annotations

from optexp.commands import Parser
from optexp.errors import BadInput, Exit
from optexp.report.tables import Column, print_table
from optexp.studies.study import read_study, study_files


def main(argv: list[str]) -> int:
    """List all studies; returns the exit status."""
    parser = Parser(
        "studies",
        "List the studies: questions with arms, seeds and a rule that was fixed before anything was trained.",
        "  optexp studies\n  optexp study=exp1_vs_exp2\n  optexp study=all",
    )
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder of your own config groups")
    options = parser.parse_args(argv)
    rows, broken = [], []
    for name, file in study_files(options.config_dir).items():
        try:
            study = read_study(file)
        except BadInput as error:
            broken.append(str(error))
            continue
        rows.append({"study": name, "claim": " ".join(study.claim), "question": study.question})
    print_table(rows, [Column("study"), Column("claim"), Column("question")])
    for problem in broken:
        print(f"not listed: {problem}")
    return Exit.DONE
