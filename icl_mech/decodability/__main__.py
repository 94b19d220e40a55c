"""`python -m icl_mech.decodability`: where can the task be read?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech decodability`, or `mean-patching` with the flag `--mean-patching`."""
    room_main("decodability", argv)


if __name__ == "__main__":
    main()
