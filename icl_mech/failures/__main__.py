"""`python -m icl_mech.failures`: what can one task vector not do?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech failures` with these options."""
    room_main("failures", argv)


if __name__ == "__main__":
    main()
