"""`python -m icl_mech.check`: is a model supported?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech check` with these options."""
    room_main("check", argv)


if __name__ == "__main__":
    main()
