"""`HookedModel`: the interface to a language model for icl-mech and its users."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from icl_mech.errors import InputError, first_line, shown
from icl_mech.layers import SITES
from icl_mech.model.answer_gradients import AnswerGradients
from icl_mech.model.arguments import check_list, check_prompts, check_tensor, token_ids, token_rows
from icl_mech.model.bridging import is_hookable
from icl_mech.model.choosing import EngineName, choose_engine
from icl_mech.model.edits import HOOKS, Role, Site, Writable
from icl_mech.model.engine import Engine
from icl_mech.model.foreign import foreign_hooks, left_hooks
from icl_mech.model.generation import Generation, check_generation, pad_continuations
from icl_mech.model.hashing import WeightHash
from icl_mech.model.head_reader import HeadReader
from icl_mech.model.network import architecture_of, context_length, module_of, places_of
from icl_mech.model.placing import AnyEdit, Placer, as_edits, positions_of
from icl_mech.model.precision import Precision
from icl_mech.model.progressive import generate_progressively
from icl_mech.model.readout import Readout, pad_targets
from icl_mech.model.shared_engine import SharedEngine
from icl_mech.model.vocabulary import Vocabulary
from icl_mech.progress import Tick, silent
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    Encoder,
    Prompt,
    Sink,
    Template,
    choose_sink,
    wants_leading_space,
    whole,
)

_LIBRARIES = ("icl-mech", "transformer-lens", "transformers", "torch")


def check_model(model: Any) -> None:
    """Refuse anything but a `HookedModel`.

    >>> check_model("gemma-3-270m")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: model is 'gemma-3-270m' (str); expected a HookedModel, from ...

    Raises:
        InputError: saying how to load a `HookedModel` instead.
    """
    if isinstance(model, HookedModel):
        return
    kind = type(model).__name__
    if isinstance(model, str | Path):
        how = f"load_model({str(model)!r})"
    elif isinstance(model, nn.Module):
        how = "load_model(bridge)" if is_hookable(model) else "load_model(model, tokenizer=...)"
    else:
        how = "load_model(...)"
    said = f"{shown(model)} ({kind})" if isinstance(model, str | Path | None) else f"a {kind}"
    raise InputError(f"model is {said}; expected a HookedModel, from {how}")


class HookedModel:
    """A TransformerLens model with a tokenizer and an engine.

    Attributes:
        bridge: the `TransformerBridge` (or `HookedTransformer`), for everything that
            TransformerLens offers.
        engine_reason: why this engine was chosen, for provenance.
        name: the name under which it was loaded.
        n_layers, n_heads, d_model, d_head: numbers of layers and heads, and widths.
        sink: the token that every prompt begins with (`Sink`).
        adapter: the provenance of the adapter that was merged in; None without one.
        heads: attention patterns, outputs and gradients of heads (`HeadReader`).
        vocabulary: reads vectors through the unembedding (`Vocabulary`).
    """

    def __init__(
        self,
        bridge: Any,
        name: str,
        batch_tokens: int | None = None,
        sink: Sink | None = None,
        adapter: Mapping[str, Any] | None = None,
        engine: Engine | None = None,
        engine_reason: str = "",
    ) -> None:
        self.bridge = bridge
        self.adapter = None if adapter is None else dict(adapter)
        self.name = name
        self.n_layers: int = bridge.cfg.n_layers
        self.n_heads: int = bridge.cfg.n_heads
        self.d_model: int = bridge.cfg.d_model
        self.d_head: int = bridge.cfg.d_head
        self._engine = SharedEngine(bridge, batch_tokens) if engine is None else engine
        self.engine_reason = engine_reason
        self._placer = Placer(bridge, name)
        self._weight_hash = WeightHash(module_of(bridge))
        self.sink = choose_sink(bridge.tokenizer) if sink is None else sink
        self.heads = HeadReader(self._engine, partial(self._placer.watched, self))
        self.vocabulary = Vocabulary(self._engine)

    def __repr__(self) -> str:
        return (
            f"HookedModel({self.name!r}, {self.n_layers} layers, {self.n_heads} heads, "
            f"d_model {self.d_model}, {self.dtype} on {self.device})"
        )

    @property
    def device(self) -> torch.device:
        """The device that tokens go to; weights may lie on others too (`device="auto"`)."""
        return self._engine.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of weights and activations."""
        return self._engine.dtype

    @property
    def precision(self) -> Precision:
        """The precision of float32 matrix products and its measured error (see `load_model`)."""
        return self._engine.precision

    @property
    def tokenizer(self) -> Any:
        """The Transformers tokenizer."""
        return self.bridge.tokenizer

    @property
    def engine(self) -> str:
        """The engine that runs edits: `"shared"` or `"plain"` (see `load_model`)."""
        return self._engine.name

    def with_engine(self, engine: EngineName, batch_tokens: int | None = None) -> "HookedModel":
        """The same model, with the same weights, on another engine.

        Args:
            engine, batch_tokens: as in `load_model`.

        Raises:
            InputError: where there is no such engine.
            ModelError: where the engine does not fit the model.
        """
        made, why = choose_engine(self.bridge, engine, batch_tokens)
        made.precision = self._engine.precision
        return HookedModel(
            self.bridge, self.name, None, self.sink, self.adapter, engine=made, engine_reason=why
        )

    # --- properties of the model ------------------------------------------------------------

    @property
    def architecture(self) -> str:
        """The name of the model's class in Transformers."""
        return architecture_of(self.bridge)

    @property
    def context_length(self) -> int | None:
        """The most tokens that the model can read; None if there is no limit."""
        return context_length(self.bridge)

    @property
    def sites(self) -> dict[str, list[int]]:
        """For each site, the blocks (from 0) in which it can be edited; an empty list if none."""
        return {site: self._placer.blocks_with(site) for site in SITES}

    def windows(self, n_positions: int) -> list[int | None] | None:
        """How many tokens back each block sees, in prompts of up to `n_positions` tokens.

        Returns:
            For every block the length of its sliding window, or None if it sees all earlier tokens.
            None for the plain engine, which does not read the model's masks.

        Raises:
            InputError: where the model cannot read so many tokens.
            ModelError: where the engine does not fit prompts of this length.
        """
        self._engine.prepare(n_positions)
        return self._engine.windows

    # --- text -------------------------------------------------------------------------------

    def encoder(
        self, template: str, words: Sequence[str], leading_space: bool | None = None
    ) -> Encoder:
        """Make an encoder for this model's tokenizer.

        Args:
            template: as in `Template`.
            words: examples of answers, which show whether words need a leading space.
            leading_space: whether words have a leading space; by default decided from `words`.
        """
        if leading_space is None:
            leading_space = wants_leading_space(self.tokenizer, words)
        made = Template(template, leading_space=leading_space)
        return Encoder(self.tokenizer, made, self.sink.token, len(self.vocabulary))

    def prompt(
        self, text: str | Sequence[Mapping[str, str]], template: str = DEFAULT_TEMPLATE
    ) -> Prompt:
        """Make a prompt of any text, without changing it.

        Args:
            text: of the prompt; or the messages of a chat, as dicts with `role` and `content`,
                which the tokenizer's own chat template formats.
            template: if the text follows it (`"Japan->Tokyo\\nFrance->"`), tokens have roles, as
                in `Prompt`. Otherwise roles are empty, and tokens are named by index.

        Raises:
            InputError: where there is no text, the tokenizer has no chat template, or the text is
                longer than the model can read.

        Example:
            >>> prompt = model.prompt("Japan->Tokyo\\nFrance->")
            >>> model.to_string(prompt.tokens[prompt.position("query")])
            'France'
        """
        if not isinstance(text, str):
            text = self._chat(text)
        encoder = Encoder(self.tokenizer, Template(template), self.sink.token, len(self.vocabulary))
        prompt = encoder.encode_text(text)
        limit = context_length(self.bridge)
        if limit is not None and len(prompt) > limit:
            raise InputError(f"a text of {len(prompt)} tokens; {self.name} reads at most {limit}")
        return prompt

    def _chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of a chat, up to the beginning of the model's answer."""
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise InputError(
                f"the tokenizer of {self.name} has no chat template; expected a text, or a model "
                "that was tuned for chats"
            )
        try:
            text = str(
                self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:  # templates are programs, which may raise any error
            raise InputError(
                f"the chat template cannot write these messages ({first_line(error)}); expected "
                "[{'role': 'user', 'content': '...'}, ...]"
            ) from error
        # The prompt begins with the sink token already.
        return text.removeprefix(self.to_string(self.sink.token))

    def to_string(self, token: int) -> str:
        """One token as text. Escape it before it goes into HTML."""
        return str(self.tokenizer.decode([token]))

    # --- reading ----------------------------------------------------------------------------

    def check_site(self, site: Site) -> None:
        """Refuse a site that some block of the model lacks.

        Raises:
            InputError: naming the model, the site, and the sites that every block has.
        """
        self._placer.hook(site)

    def why_no_site(self, site: Site) -> str:
        """Say which blocks of the model lack a site; empty text if every block has it."""
        return self._placer.why_no_site(site)

    @property
    def adds_to_stream(self) -> bool:
        """Whether blocks add their outputs to the residual stream without normalising the sum."""
        return hasattr(self.bridge, "ln_final")

    def why_no_attention(self) -> str:
        """Say which block of the model has no attention to cut; empty text if all have it."""
        return self._placer.why_no_attention(range(self.n_layers))

    def final_residuals(
        self, groups: Sequence[Sequence[Prompt]], tick: Tick = silent
    ) -> Float[Tensor, "group branch layer d_model"]:
        """Residual stream at each prompt's last token after every block (`hook_resid_post`).

        Args:
            groups: prompts that share their first tokens, such as different queries after the
                same demonstrations; the shared part is computed once per group.
            tick: called with the number of prompts just finished.

        Raises:
            InputError: where groups differ in size or are empty, or the prompts of a group do not
                share their first token.
        """
        groups = [
            check_prompts(group, "a group") for group in check_list(groups, "groups", "groups")
        ]
        sizes = {len(group) for group in groups}
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(f"groups of {sorted(sizes)} prompts; expected one size, at least 1")
        if any(
            len({p.tokens[0] for p in group}) > 1 or min(map(len, group)) < 2 for group in groups
        ):
            raise InputError(
                "prompts of a group share no first token, or one has no second; expected prompts "
                "that all begin with the sink token, as an encoder makes them"
            )
        tokens = [[p.tokens for p in group] for group in groups]
        return self._engine.branch_residuals(tokens, tick)

    def capture(
        self,
        prompts: Sequence[Prompt],
        roles: Sequence[Role],
        site: Site = "resid_post",
        edit: AnyEdit = None,
    ) -> Float[Tensor, "prompt role layer *shape"]:
        """Run prompts, and keep activations at chosen tokens of every prompt, at every block.

        Args:
            prompts: what to run.
            roles: roles (their last token) or token indices.
            site: as in `Edit`; `"z"` has the trailing shape `[head, d_head]`, every other site
                `[d_model]`.
            edit: edits that are in place meanwhile, as in `evaluate`, but no knockouts. Whole
                prompts run.

        Raises:
            InputError: where there is no prompt, a prompt lacks a role, the model lacks a site, or
                the edit does not fit.
        """
        return self.capture_sites(prompts, roles, [site], edit)[0]

    def capture_sites(
        self,
        prompts: Sequence[Prompt],
        roles: Sequence[Role],
        sites: Sequence[Site],
        edit: AnyEdit = None,
    ) -> tuple[Float[Tensor, "prompt role layer *shape"], ...]:
        """As `capture`, but for several sites in one pass.

        Raises:
            InputError: as `capture`.
        """
        prompts = check_prompts(prompts)
        at = self._engine.at_tokens(positions_of(prompts, roles))
        picks = [(self._placer.hook(site), at) for site in sites]
        branch = self._placer.watched(self, edit, prompts)
        found = self._engine.observe([p.tokens for p in prompts], picks, branch)
        return tuple(rearrange(f, "prompt layer role ... -> prompt role layer ...") for f in found)

    def residual_stream(
        self, prompts: Sequence[Prompt], roles: Sequence[Role]
    ) -> Float[Tensor, "prompt role stage d_model"]:
        """The residual stream at chosen tokens: before the first block, then after every block.

        Args:
            prompts: what to run.
            roles: roles (their last token) or token indices.

        Raises:
            InputError: where there is no prompt, or one lacks a role.
        """
        prompts = check_prompts(prompts)
        at = self._engine.at_tokens(positions_of(prompts, roles))
        picks = [(HOOKS[site], at) for site in ("resid_pre", "resid_post")]
        before, after = self._engine.observe([p.tokens for p in prompts], picks)
        stages = torch.cat([before[:, :1], after], dim=1)
        return rearrange(stages, "prompt stage role d -> prompt role stage d")

    def read(
        self,
        resid: Float[Tensor, "row d_model"] | Writable,
        answers: Sequence[Sequence[int]],
        n_best: int = 0,
        entropy: bool = False,
    ) -> Readout:
        """Next-token readout of vectors that stand for the residual stream after the last block.

        Args:
            resid: one residual stream per row; or a `TaskVector`, whose layers are the rows.
            answers: for each row, the token ids whose log probability and rank are read; -1 is
                padding, and gives NaN and rank -1.
            n_best: how many of the most probable tokens to keep (`best`, `best_logprob`).
            entropy: whether to compute the entropy of every row's distribution.

        Raises:
            InputError: where the vocabulary has fewer than `n_best` tokens, the numbers of answers
                and rows differ, or the vector is of another model.
            ModelError: where the model returns numbers that are not finite.
        """
        self.vocabulary.check_count(n_best, "n_best", least=0)
        if isinstance(resid, Writable):
            resid.check_fits(self)
            resid = resid.values.to(self.device)
        resid = check_tensor(resid, "resid", "row, d_model", self.d_model)
        targets = pad_targets(answers, len(resid), len(self.vocabulary))
        return self._engine.read(resid, targets, n_best, entropy)

    def predict(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[int]],
        tick: Tick = silent,
    ) -> Readout:
        """Next-token readout at each prompt's last token, without edits.

        Args:
            prompts: what to run.
            answers: for each prompt, the token ids whose log probability and rank are read.
            tick: called with the number of prompts just finished.

        Raises:
            InputError: where the numbers of rows of answers and prompts differ.
            ModelError: where the model returns numbers that are not finite.
        """
        prompts = check_prompts(prompts)
        targets = pad_targets(answers, len(prompts), len(self.vocabulary))
        last = self.final_residuals([[p] for p in prompts], tick)[:, 0, -1]
        return self._engine.read(last, targets)

    def evaluate(
        self,
        prompts: Sequence[Prompt],
        edits: Sequence[AnyEdit],
        answers: Sequence[Sequence[int]],
        tick: Tick = silent,
    ) -> Readout:
        """Next-token readout at each prompt's last token, for each edit by itself.

        Args:
            prompts: what to run.
            edits: each is applied alone, to every prompt. An item that is a sequence of edits is
                applied together, as one edit. None leaves the prompts as they are. A `TaskVector`
                edits the last token.
            answers: for each prompt, the token ids whose log probability and rank are read.
            tick: called with the number of (prompt, edit) cells just finished.

        Returns:
            `top [prompt, edit]`, `logprob` and `rank [prompt, edit, answer]`.

        Raises:
            InputError: where an edit, or the answers, do not fit the model or the prompts.
            ModelError: where the model returns numbers that are not finite.
        """
        prompts = check_prompts(prompts)
        branches = self._placer.branches(self, edits, prompts)
        targets = pad_targets(answers, len(prompts), len(self.vocabulary))
        return self._engine.evaluate([p.tokens for p in prompts], branches, targets, tick)

    def last_streams(
        self, prompts: Sequence[Prompt], edits: Sequence[AnyEdit], tick: Tick = silent
    ) -> Float[Tensor, "prompt edit d_model"]:
        """The residual stream after the last block at each prompt's last token, for each edit.

        Args:
            prompts, edits: as in `evaluate`.
            tick: called with the number of (prompt, edit) cells just finished.

        Raises:
            InputError: where an edit does not fit the model or the prompts.
        """
        prompts = check_prompts(prompts)
        branches = self._placer.branches(self, edits, prompts)
        return self._engine.last_streams([p.tokens for p in prompts], branches, tick)

    def answer_gradients(
        self, prompts: Sequence[Prompt], edits: Sequence[AnyEdit], answers: Sequence[int]
    ) -> AnswerGradients:
        """Prepare gradients of each answer's log probability with respect to the edits' values.

        The prompts run here, once, and the keys and values of all tokens are kept in memory. Each
        `.at(values)` then runs only the edited tokens and those after them, forward and backward,
        from the first edited block on. (On the plain engine it runs whole prompts.) The weights
        must not change meanwhile.

        Args:
            prompts: what to run.
            edits: as in `evaluate`, but without None, which writes nothing.
            answers: for each prompt, the token whose log probability is differentiated.

        Raises:
            InputError: where an edit, or the answers, do not fit the model or the prompts, the
                weights are quantised, or the model is in training mode.
            ModelError: where not even one prompt fits into memory.

        Example:
            >>> prompt = model.prompt("Japan->Tokyo\\nFrance->")
            >>> edit = icl_mech.Edit(9, model.capture([prompt], [-1])[0, 0, 9], mode="add")
            >>> found = model.answer_gradients([prompt], [edit], [5]).at()
            >>> found.logprob.shape, found.gradients[0].shape
            (torch.Size([1, 1]), torch.Size([1, 640]))
        """
        prompts = check_prompts(prompts)
        if any(edit is None for edit in check_list(edits, "edits", "edits")):
            raise InputError("edits holds None, which writes nothing; expected edits with values")
        branches = self._placer.branches(self, edits, prompts)
        ids = pad_targets([[i] for i in token_ids(answers)], len(prompts), len(self.vocabulary))
        if bool((ids < 0).any()):
            raise InputError("an answer token is -1; expected one from the vocabulary per prompt")
        tokens = [p.tokens for p in prompts]
        return AnswerGradients(self._engine, tokens, branches, ids[:, 0].tolist())

    # --- generating ---------------------------------------------------------------------------

    @overload
    def generate(
        self,
        prompts: str | Prompt,
        edits: Sequence[AnyEdit] = ...,
        max_new_tokens: int = ...,
        stop: str = ...,
        tick: Tick = ...,
        *,
        vector: Writable | None = ...,
        demonstrations_for: int | None = ...,
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        edits: Sequence[AnyEdit] = ...,
        max_new_tokens: int = ...,
        stop: str = ...,
        tick: Tick = ...,
        *,
        vector: Writable | None = ...,
        demonstrations_for: int | None = ...,
    ) -> list[list[Generation]]: ...

    def generate(
        self,
        prompts: str | Prompt | Sequence[Prompt],
        edits: Sequence[AnyEdit] = (None,),
        max_new_tokens: int = 16,
        stop: str = "\n",
        tick: Tick = silent,
        *,
        vector: Writable | None = None,
        demonstrations_for: int | None = None,
    ) -> Generation | list[list[Generation]]:
        """Generate greedily after each prompt, for each edit by itself; the edit stays in place.

        Generated tokens attend to the edited token, as in a full forward pass with a hook there.

        Args:
            prompts: what to continue: a text (see `prompt`), a prompt, or several prompts.
            edits: as in `evaluate`; None means the prompt without edits.
            max_new_tokens: the most tokens to generate; a longer text is cut (`Generation.cut`).
            stop: text that ends the answer, as an end-of-text token does.
            tick: called with the number of (prompt, edit) cells just finished.
            vector: a `TaskVector`, written at the last token of the prompt; in place of `edits`.
            demonstrations_for: first generate this many tokens after the whole prompt, without
                edits. Then drop its demonstrations and instruction, and continue from the query and
                these tokens alone, with the edits in place (PICA, arXiv 2503.09958). With 0, the
                demonstrations are dropped from the beginning; by default they are kept.

        Returns:
            One generation for a single text or prompt; otherwise a list for each prompt, with one
            generation per edit.

        Raises:
            InputError: where an edit does not fit, `stop` is empty, prompt and new tokens are too
                long for the model, or there are no demonstrations to drop.
            ModelError: where the model returns numbers that are not finite.

        Example:
            >>> text = "Japan->Tokyo\\nFrance->Paris\\nPeru->"
            >>> model.generate(text, max_new_tokens=4).text
            'Lima'
            >>> model.generate(text, max_new_tokens=4, demonstrations_for=1).tokens[:1]
            (...)
        """
        if vector is not None:
            edits = [vector]
        one = isinstance(prompts, str | Prompt)
        if one and len(edits) != 1:
            raise InputError(f"{len(edits)} edits of a single prompt; expected one, or [prompt]")
        if isinstance(prompts, str):
            prompts = self.prompt(prompts)
        several = check_prompts([prompts] if isinstance(prompts, Prompt) else prompts)
        check_generation(max_new_tokens, stop)
        found = self._generated(several, edits, max_new_tokens, stop, tick, demonstrations_for)
        return found[0][0] if one else found

    def _generated(
        self,
        prompts: Sequence[Prompt],
        edits: Sequence[AnyEdit],
        n: int,
        stop: str,
        tick: Tick,
        demonstrations_for: int | None,
    ) -> list[list[Generation]]:
        """Generate for every prompt and edit; keep the demonstrations, or drop them midway."""
        if demonstrations_for is None:
            branches = self._placer.branches(self, edits, prompts)
            return self._engine.generate([p.tokens for p in prompts], branches, n, stop, tick)
        k = whole("demonstrations_for", demonstrations_for)
        if k < 0:
            raise InputError(f"demonstrations_for is {k}; expected 0 or more tokens")
        given = [as_edits(self, edit) for edit in check_list(edits, "edits", "edits")]
        if not prompts or not given:
            raise InputError("expected at least one prompt and one edit")
        return generate_progressively(self._engine, self._placer, prompts, given, k, n, stop, tick)

    def logprobs(
        self, prompt: str | Prompt, answers: Sequence[str], vector: Writable | None = None
    ) -> dict[str, float]:
        """Log probability (nats) of whole answers after a prompt.

        Args:
            prompt: a text (see `prompt`) or a prompt.
            answers: the texts that follow, exactly as given: `" Ottawa"` has a leading space.
            vector: a `TaskVector`, written at the last token of the prompt.

        Raises:
            InputError: where an answer gives no tokens, or the vector does not fit.
            ModelError: where the model returns numbers that are not finite.

        Example:
            >>> found = model.logprobs("Japan->Tokyo\\nCanada->", ["Ottawa", "Toronto"])
            >>> list(found), found["Ottawa"] < 0
            (['Ottawa', 'Toronto'], True)
        """
        if isinstance(answers, str):
            raise InputError(f"answers is the text {answers!r}; expected a list of texts")
        made = self.prompt(prompt) if isinstance(prompt, str) else prompt
        template = Template(DEFAULT_TEMPLATE, leading_space=False)
        encoder = Encoder(self.tokenizer, template, self.sink.token, len(self.vocabulary))
        tokens = encoder.answer_tokens(made, answers)
        found = self.sequence_logprob([made], [tokens], [vector])[0, 0].tolist()
        return dict(zip(answers, found, strict=True))

    def sequence_logprob(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[Sequence[int]]],
        edits: Sequence[AnyEdit] = (None,),
        tick: Tick = silent,
    ) -> Float[Tensor, "prompt edit continuation"]:
        """Log probability (nats) of whole continuations: the sum over their tokens.

        Args:
            prompts: what comes before.
            continuations: for each prompt, token ids of one or more continuations.
            edits: as in `generate`.
            tick: called with the number of (prompt, edit) cells just finished.

        Returns:
            NaN where a prompt has fewer continuations than another.

        Raises:
            InputError: as in `generate`, and where a continuation is empty.
            ModelError: where the model returns numbers that are not finite.
        """
        prompts = check_prompts(prompts)
        rows = check_list(continuations, "continuations", "continuations for each prompt")
        ids = [token_rows(row, "continuations") for row in rows]
        branches, tokens = self._placer.branches(self, edits, prompts), [p.tokens for p in prompts]
        padded = pad_continuations(tokens, ids)
        return self._engine.sequence_logprob(tokens, padded, branches, tick)

    # --- provenance -------------------------------------------------------------------------

    @property
    def weight_hash(self) -> str:
        """sha256 over the names, shapes, types and bytes of all weights as they are now."""
        return self._weight_hash.value

    def weights_held(self) -> AbstractContextManager[None]:
        """Context in which no weight may change, so that their hash is computed at most once.

        Use it when many task vectors are written, because each of them checks the model's weights.

        Example:
            >>> with model.weights_held():
            ...     one, two = model.weight_hash, model.weight_hash
            >>> one == two == model.weight_hash
            True
        """
        return self._weight_hash.held()

    def provenance(self) -> dict[str, Any]:
        """The facts about this model that a result records.

        Hooks that a caller left on the bridge change every result. So they are recorded, with a
        warning.
        """
        hooks = foreign_hooks(self.bridge)
        if hooks:
            warnings.warn(left_hooks(hooks), stacklevel=2)
        return {
            "model": self.name,
            "weights_sha256": self.weight_hash,
            **({} if self.adapter is None else {"adapter": self.adapter}),
            "architecture": architecture_of(self.bridge),
            "engine": self.engine,
            "engine_reason": self.engine_reason,
            "dtype": str(self.dtype).removeprefix("torch."),
            **self.precision.recorded(),
            "device": places_of(self.bridge),
            "sink_token": self.to_string(self.sink.token),
            "sink_reason": self.sink.reason,
            "foreign_hooks": hooks,
            "batch_tokens": self._engine.budget.tokens,
            "batch_halvings": self._engine.budget.halvings,
            # How many top tokens were read since the model was loaded, and how many were tied.
            "readouts": {"n": self._engine.n_read, "tied": self._engine.n_tied},
            "versions": {library: version(library) for library in _LIBRARIES},
        }
