"""`python -m icl_mech.localize`: where is the task encoded, and where is it decoded?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech localize`."""
    room_main("localize", argv)


if __name__ == "__main__":
    main()
