"""Does an optimizer do what its name and its arguments say? Published rules, closed-form problems, checks."""
