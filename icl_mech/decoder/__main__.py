"""`python -m icl_mech.decoder`: which heads and MLPs decode a task vector?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech decoder` with these options."""
    room_main("decoder", argv)


if __name__ == "__main__":
    main()
