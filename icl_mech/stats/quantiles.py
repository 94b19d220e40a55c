"""Quantiles of the distributions behind intervals; scipy.special is imported when one is asked for.

A command's help and the first picture of a prompt need no interval, and importing scipy.special
takes as long as all else that help imports.
"""


def normal(share: float) -> float:
    """Below which value a share of the standard normal distribution lies.

    >>> round(normal(0.975), 3)
    1.96
    """
    from scipy.special import ndtri

    return float(ndtri(share))


def student_t(df: int | float, share: float) -> float:
    """Below which value a share of Student's t distribution lies.

    Args:
        df: degrees of freedom.
        share: between 0 and 1.

    >>> round(student_t(9.0, 0.975), 3)
    2.262
    """
    from scipy.special import stdtrit

    return float(stdtrit(df, share))
