"""Models in this process show their answers as they grow."""

from __future__ import annotations

import asyncio
from pathlib import Path

from constitutional_ai.models.abilities import Streams, streamed
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Message

ASKED = (Message("user", "How do I bake bread?"),)
SAMPLING = Sampling(max_tokens=12, seed=3)


def test_an_answer_is_the_same_shown_or_not(tiny: Path) -> None:
    model, shown = HuggingFaceModel("tiny", tiny), list[list[str]]([[], []])
    assert isinstance(model, Streams)

    async def both() -> list[str]:
        asked = [streamed(model, ASKED, SAMPLING, shown[0].append), model.generate(ASKED, SAMPLING)]
        return [completion.text for completion in await asyncio.gather(*asked)]

    texts = asyncio.run(both())
    assert texts[0] == texts[1] and shown[1] == []
    assert len(shown[0]) > 3 and shown[0][-1].strip() == texts[0]
