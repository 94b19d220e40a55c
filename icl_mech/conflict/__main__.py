"""`python -m icl_mech.conflict`: the prompt shows one task, the vector is another's"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech conflict` with these options."""
    room_main("conflict", argv)


if __name__ == "__main__":
    main()
