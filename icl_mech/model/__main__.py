"""`python -m icl_mech.model --check MODEL`: is a model supported?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the flag names with these options."""
    room_main("model", argv)


if __name__ == "__main__":
    main()
