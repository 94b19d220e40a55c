"""`python -m icl_mech.transfer`: vectors formed under one template, written under another."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `transfer`."""
    room_main("transfer", argv)


if __name__ == "__main__":
    main()
