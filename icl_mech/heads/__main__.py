"""`python -m icl_mech.heads`: which attention heads carry the task, and what they do."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand that a flag asks for, such as `--ablation`; without one, `heads`."""
    room_main("heads", argv)


if __name__ == "__main__":
    main()
