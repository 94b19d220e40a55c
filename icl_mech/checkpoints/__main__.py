"""`python -m icl_mech.checkpoints`: task decodability and accuracy over training."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `checkpoints`."""
    room_main("checkpoints", argv)


if __name__ == "__main__":
    main()
