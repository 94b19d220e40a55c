"""`python -m icl_mech.variability`: how much does a task's vector vary?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech variability` with these options."""
    room_main("variability", argv)


if __name__ == "__main__":
    main()
