"""Replies that a benchmark drew, and the memory traffic of drawing them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Generated:
    """Replies to a batch of prompts, as token ids, those to one prompt after one another.

    prompt_ids: of each reply's prompt; chunks: the replies' own, in the chunks in which they were drawn.
    """

    prompt_ids: list[list[int]]
    chunks: list[list[list[int]]]

    @property
    def completion_ids(self) -> list[list[int]]:
        """The ids of all replies, a list each."""
        return [completion for chunk in self.chunks for completion in chunk]

    @property
    def tokens(self) -> int:
        """Tokens of all replies and of a prompt each."""
        return sum(map(len, self.prompt_ids)) + sum(map(len, self.completion_ids))

    def memory_traffic(
        self, *, weights: float, cache: float, prompt: int, batch_size: int, padded: bool, reads_ended: bool
    ) -> "MemoryTraffic":
        """What was read from the memory to draw the replies.

        weights: bytes of all weights; cache: bytes of a token's keys and values; prompt: tokens of each; batch_size: of
        replies; padded: whether replies that have ended wait for the longest, otherwise the fewest possible steps are
        counted. reads_ended: whether the keys and values of replies that have ended are read too.
        """
        nbytes, steps = 0.0, 0
        for chunk in self.chunks:
            lengths = [len(completion) for completion in chunk]
            longest, fewest = max(lengths), -(-sum(lengths) // batch_size)
            chunk_steps = longest if padded else max(longest, fewest)
            seen = [longest] * len(chunk) if reads_ended else lengths
            cached = sum(length * (prompt + length / 2) for length in seen)  # tokens, over all steps
            nbytes += weights * chunk_steps + cached * cache
            steps += chunk_steps
        return MemoryTraffic(nbytes, steps)


@dataclass(frozen=True)
class MemoryTraffic:
    """How many bytes were read from the memory, and in how many token steps."""

    nbytes: float
    steps: int
