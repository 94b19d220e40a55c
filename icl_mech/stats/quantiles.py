"""Quantiles of the distributions behind intervals; scipy.special is imported on first use.

A command's help and the figure of a single prompt need no interval, and importing scipy.special
takes as long as all other imports of the help.
"""


def normal(share: float) -> float:
    """The value below which a share of the standard normal distribution lies.

    >>> round(normal(0.975), 3)
    1.96
    """
    from scipy.special import ndtri

    return float(ndtri(share))


def student_t(df: int | float, share: float) -> float:
    """The value below which a share of Student's t distribution lies.

    Args:
        df: degrees of freedom.
        share: between 0 and 1.

    >>> round(student_t(9.0, 0.975), 3)
    2.262
    """
    from scipy.special import stdtrit

    return float(stdtrit(df, share))
