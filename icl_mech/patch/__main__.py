"""`python -m icl_mech.patch`: scans over layers, token positions, components; mean patching."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand that a flag asks for, such as `--layer-scan`."""
    room_main("patch", argv)


if __name__ == "__main__":
    main()
