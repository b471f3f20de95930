"""Make laion_clap.npz: the output of the published package laion_clap for the clips and weights of `clap_inputs.py`.

Run it in a separate environment, because the package needs numpy below 2:

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    pip install torchvision==0.28.0 --no-deps --index-url https://download.pytorch.org/whl/cpu
    pip install "laion-clap==1.1.7" "numpy<2" transformers pillow
    python make_laion_clap.py

Importing laion_clap downloads three tokenizers, and constructing it a text model. The audio branch needs neither, so
they are replaced by placeholders and no network is needed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from clap_inputs import MODELS, clips, weight

operators = torch.library.Library("torchvision", "DEF")
operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import transformers  # noqa: E402


class _Text(torch.nn.Module):
    """Placeholder for the text model, which the audio branch does not use; only its width matters."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = torch.nn.Module()
        self.embeddings.word_embeddings = torch.nn.Embedding(1, 768)


def _stand_in(*_: Any, **__: Any) -> Any:
    return _Text()


names = ("RobertaModel", "BertModel", "BartModel", "RobertaTokenizer", "BertTokenizer", "BartTokenizer")
patches = [mock.patch.object(getattr(transformers, name), "from_pretrained", _stand_in) for name in names]
for patch in patches:
    patch.start()
sys.argv = sys.argv[:1]
import laion_clap  # noqa: E402

found: dict[str, Any] = {}
for model in MODELS:
    clap = laion_clap.CLAP_Module(enable_fusion=False, device="cpu", amodel=model)
    with torch.no_grad():
        for name, tensor in clap.model.state_dict().items():
            value = (
                weight(name, tuple(tensor.shape)) if name.startswith(("audio_branch.", "audio_projection.")) else None
            )
            if value is not None:
                tensor.copy_(torch.from_numpy(value))
    clap.eval()
    found[model] = np.concatenate([clap.get_audio_embedding_from_data(x=[clip], use_tensor=False) for clip in clips()])
np.savez(Path(__file__).with_name("laion_clap.npz"), **{name: rows.astype(np.float32) for name, rows in found.items()})
print({name: (rows.shape, (rows @ rows.T).round(3).tolist()[0]) for name, rows in found.items()})
