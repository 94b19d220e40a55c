"""Which task wins on the packaged model, the prompt's or the vector's."""

from icl_mech.conflict import conflicting_tasks
from icl_mech.model import HookedModel


def test_the_packaged_model_follows_the_injected_task(gemma: HookedModel) -> None:
    """Where there is a task to override, at least half of the pairs follow the vector."""
    pairs = [("list_last", "list_first"), ("present_past", "present_gerund"), ("en_es", "en_fr")]
    result = conflicting_tasks(gemma, pairs, 16, n_dev=12, progress=False)
    flipped = result.flipped()
    assert len(flipped) == 3
    assert sum(flipped.values()) >= len(flipped) / 2
    # The paper's negative: another language's vector does not win.
    assert not flipped["en_es:en_fr"]
    for pair in result.pairs:
        assert result.share(pair, "prompt", "random").value <= 0.1
        own, regular = (result.share(pair, "prompt", c).value for c in ("own", "regular"))
        assert abs(own - regular) <= 0.25
        assert 8 <= result.layer(pair) <= 11
