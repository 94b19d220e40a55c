"""`python -m icl_mech.masking`: by which layer have the demonstrations been read?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run `icl-mech masking` with these options."""
    room_main("masking", argv)


if __name__ == "__main__":
    main()
