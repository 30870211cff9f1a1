"""The towers of a model folder as folders that infinity loads: of texts, and CLIP-like.

text_folder, clip_folder = export(folder, Path("peer"))
"""

import json
import shutil
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import torch
from benchmarks.serving.models import SIDE
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

from trimodal.vocabulary import NUM_SPECIAL

CODE = Path(__file__).with_name("peer_model.py")
NAMES = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "attention.": "self_attn.",
}
"""Of the parts of a block, ours and Qwen3's; the others are called alike."""


def export(folder: Path, target: Path) -> tuple[Path, Path]:
    """Write the same weights twice: for sentence-transformers, and as what CLIP's classes are."""
    config = json.loads((folder / "config.json").read_text())["architecture"]
    proto = (folder / "text.model").read_bytes()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    weights = _weights(load_file(folder / "model.safetensors"), config, pieces.get_piece_size())
    text, clip = target / "text", target / "clip"
    for place in (text, clip):
        place.mkdir(parents=True, exist_ok=True)
        _write_model(place, config, weights, len(weights["table.weight"]))
        _write_tokenizer(place, pieces, config["max_text_tokens"])
    _write_sentence_transformer(text, weights["text.projection.weight"], config)
    _write(clip / "preprocessor_config.json", IMAGES)
    tree = json.loads((clip / "config.json").read_text())
    # by which infinity knows a model of pictures
    _write(clip / "config.json", {**tree, "vision_config": {"image_size": SIDE}})
    return text, clip


IMAGES = {
    "processor_class": "CLIPProcessor",
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": False,
    "do_center_crop": False,
    "do_convert_rgb": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def _write(path: Path, tree: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _weights(ours: dict[str, Tensor], config: Any, num_pieces: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for number, tower in ((0, "vision"), (1, "text")):
        begin = f"encoders.{number}."
        for name, tensor in ours.items():
            if name.startswith(f"{begin}transformer."):
                rest = name.removeprefix(f"{begin}transformer.").replace("blocks.", "layers.")
                for old, new in NAMES.items():
                    rest = rest.replace(old, new)
                found[f"{tower}.{rest}"] = tensor
        found[f"{tower}.projection.weight"] = ours[f"{begin}embedding.projection.weight"]
        stack = config[tower]
        quarter = stack["width"] // stack["num_heads"] // 4
        steps = torch.arange(quarter) / quarter
        found[f"{tower}.frequency"] = stack["rope_theta"] ** -steps
    # the table and what widens it are one product of the same numbers
    rows = ours["encoders.1.frontend.table.weight"][NUM_SPECIAL : NUM_SPECIAL + num_pieces]
    found["table.weight"] = rows @ ours["encoders.1.frontend.projection.weight"].T
    size = config["vision_input"]["patch_size"]
    found["patches.weight"] = ours["encoders.0.frontend.projection.weight"].view(-1, 3, size, size)
    found["patches.bias"] = ours["encoders.0.frontend.projection.bias"]
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _write_model(place: Path, config: Any, weights: dict[str, Tensor], pieces: int) -> None:
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    shutil.copy(CODE, place / "peer_model.py")
    tower = config["text"]
    tree = {
        "architectures": ["TowersModel"],
        "model_type": "towers",
        "auto_map": {
            "AutoConfig": "peer_model.TowersConfig",
            "AutoModel": "peer_model.TowersModel",
        },
        "width": tower["width"],
        "depth": tower["depth"],
        "num_heads": tower["num_heads"],
        "hidden": len(weights["text.layers.0.mlp.gate_proj.weight"]),
        "vocab_size": pieces,
        "patch_size": config["vision_input"]["patch_size"],
        "rope_theta": tower["rope_theta"],
        "embedding_dim": config["embedding_dim"],
        "max_position_embeddings": config["max_text_tokens"],
        "max_length": config["max_text_tokens"],  # else infinity cuts texts of CLIP's at 20 tokens
        "torch_dtype": "float32",
    }
    _write(place / "config.json", tree)


def _write_tokenizer(
    place: Path, pieces: sentencepiece.SentencePieceProcessor, max_tokens: int
) -> None:
    """The unigram model; made-up words are lower-case ASCII, which nothing normalises."""
    size = range(pieces.get_piece_size())
    scored = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in size]
    made = tokenizers.Tokenizer(models.Unigram(scored, unk_id=pieces.unk_id(), byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.save(str(place / "tokenizer.json"))
    unknown = pieces.id_to_piece(pieces.unk_id())
    tree = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": unknown,
        "pad_token": unknown,
        "model_max_length": max_tokens,
        "padding_side": "right",
    }
    _write(place / "tokenizer_config.json", tree)


def _write_sentence_transformer(place: Path, projection: Tensor, config: Any) -> None:
    width, dim = config["text"]["width"], config["embedding_dim"]
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Norm": "Normalize"}
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (path, kind) in enumerate(kinds.items())
    ]
    _write(place / "modules.json", modules)
    sentences = {"max_seq_length": config["max_text_tokens"], "do_lower_case": False}
    _write(place / "sentence_bert_config.json", sentences)
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    _write(place / "1_Pooling/config.json", pooling)
    dense = {
        "in_features": width,
        "out_features": dim,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write(place / "2_Dense/config.json", dense)
    save_file({"linear.weight": projection}, place / "2_Dense/model.safetensors", {"format": "pt"})
    (place / "3_Norm").mkdir(exist_ok=True)
