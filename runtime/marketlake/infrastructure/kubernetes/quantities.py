"""Quantities as Kubernetes writes them."""

import re
from fractions import Fraction

_FACTORS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
}  # fmt: skip
_NOTATION = re.compile(
    r"""(?P<number> [+-]? (?: [0-9]+ (?: \.[0-9]* )? | \.[0-9]+ ) )
        (?: [eE] (?P<exponent> [+-]?[0-9]{1,3} ) | (?P<suffix> [numkMGTPE]? | [KMGTPE]i ) )""",
    re.VERBOSE,
)


def quantity(text: str) -> Fraction:
    """Return the number that a quantity stands for, exactly: cores of ``500m``, bytes of ``2Gi``.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/

    Raises:
        ValueError: it is not in Kubernetes' notation.
    """
    found = _NOTATION.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not a Kubernetes quantity: a number with one of the suffixes n, u, m, k, M, G, T, P, E, "
            "Ki, Mi, Gi, Ti, Pi, Ei, with an exponent as in 1e3, or with neither"
        )
    number = Fraction(found["number"])
    if found["exponent"] is not None:
        return number * Fraction(10) ** int(found["exponent"])
    return number * _FACTORS[found["suffix"]]
