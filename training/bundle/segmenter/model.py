"""The bundled segmenter's architecture: a SAM 2 small enough to train from scratch on two cores.

Only the configuration is ours; every module is sam2's own, so that any program that reads sam2's
configuration files can build it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segzero_core.checkpoints.sam2_architecture import sam2_from_values

if TYPE_CHECKING:
    from torch import nn

# The color statistics SAM 2 normalizes with, as fractions of 255.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelSize:
    """The numbers that make one SAM 2 configuration."""

    # Side of the square the image is squashed to [px]. A mask cell is 4 of them.
    image_size: int = 512
    embed_dim: int = 32  # channels of the first encoder stage; each later stage doubles them
    stages: tuple[int, int, int, int] = (1, 2, 5, 1)  # blocks in each of the four encoder stages
    # Side of the attention windows in each stage [tokens]; each divides its grid.
    windows: tuple[int, int, int, int] = (8, 8, 16, 16)
    # Encoder blocks, counted over all stages, that see the whole image.
    global_blocks: tuple[int, ...] = (5, 7)
    width: int = 128  # channels of the neck, the mask decoder and the memory attention
    memory_dim: int = 32  # channels of one remembered frame
    memory_layers: int = 2  # layers of the memory attention
    memory_feedforward: int = 256  # hidden channels in each of them


# For tests only: builds and steps in well under a second.
TINY = ModelSize(
    image_size=64,
    embed_dim=8,
    stages=(1, 1, 1, 1),
    windows=(4, 4, 4, 2),
    global_blocks=(),
    width=32,
    memory_dim=16,
    memory_layers=1,
    memory_feedforward=32,
)
SIZES = {"tabletop": ModelSize(), "tiny": TINY}


def model_config(size: ModelSize) -> dict[str, Any]:
    """Write out the `model:` section of a sam2 configuration file, set as SAM 2.1 is."""
    return {
        "_target_": "sam2.modeling.sam2_base.SAM2Base",
        "image_encoder": _image_encoder(size),
        "memory_attention": _memory_attention(size),
        "memory_encoder": _memory_encoder(size),
        "num_maskmem": 7,
        "image_size": size.image_size,
        "sigmoid_scale_for_mem_enc": 20.0,
        "sigmoid_bias_for_mem_enc": -10.0,
        "use_mask_input_as_output_without_sam": True,
        "directly_add_no_mem_embed": True,
        "no_obj_embed_spatial": True,
        "use_high_res_features_in_sam": True,
        "multimask_output_in_sam": True,
        "iou_prediction_use_sigmoid": True,
        "use_obj_ptrs_in_encoder": True,
        "add_tpos_enc_to_obj_ptrs": True,
        "proj_tpos_enc_in_obj_ptrs": True,
        "use_signed_tpos_enc_to_obj_ptrs": True,
        "only_obj_ptrs_in_the_past_for_eval": True,
        "pred_obj_scores": True,
        "pred_obj_scores_mlp": True,
        "fixed_no_obj_ptr": True,
        "multimask_output_for_tracking": True,
        "use_multimask_token_for_obj_ptr": True,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
        "use_mlp_for_obj_ptr_proj": True,
        "compile_image_encoder": False,
    }


def build_model(config: dict[str, Any]) -> nn.Module:
    """Build the (untrained) sam2 model that a `model:` section describes."""
    return sam2_from_values(config).train()


def _position_encoding(channels: int) -> dict[str, Any]:
    return {
        "_target_": "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": channels,
        "normalize": True,
        "scale": None,
        "temperature": 10000,
    }


def _image_encoder(size: ModelSize) -> dict[str, Any]:
    return {
        "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
        "scalp": 1,
        "trunk": {
            "_target_": "sam2.modeling.backbones.hieradet.Hiera",
            "embed_dim": size.embed_dim,
            "num_heads": 1,
            "stages": list(size.stages),
            "global_att_blocks": list(size.global_blocks),
            "window_spec": list(size.windows),
            "window_pos_embed_bkg_spatial_size": [7, 7],
        },
        "neck": {
            "_target_": "sam2.modeling.backbones.image_encoder.FpnNeck",
            "position_encoding": _position_encoding(size.width),
            "d_model": size.width,
            "backbone_channel_list": [size.embed_dim * 2**stage for stage in (3, 2, 1, 0)],
            "fpn_top_down_levels": [2, 3],
            "fpn_interp_model": "nearest",
        },
    }


def _memory_attention(size: ModelSize) -> dict[str, Any]:
    attention = {
        "_target_": "sam2.modeling.sam.transformer.RoPEAttention",
        "rope_theta": 10000.0,
        "feat_sizes": [size.image_size // 16] * 2,
        "embedding_dim": size.width,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.1,
    }
    return {
        "_target_": "sam2.modeling.memory_attention.MemoryAttention",
        "d_model": size.width,
        "pos_enc_at_input": True,
        "num_layers": size.memory_layers,
        "layer": {
            "_target_": "sam2.modeling.memory_attention.MemoryAttentionLayer",
            "activation": "relu",
            "dim_feedforward": size.memory_feedforward,
            "dropout": 0.1,
            "pos_enc_at_attn": False,
            "d_model": size.width,
            "pos_enc_at_cross_attn_keys": True,
            "pos_enc_at_cross_attn_queries": False,
            "self_attention": attention,
            "cross_attention": {**attention, "rope_k_repeat": True, "kv_in_dim": size.memory_dim},
        },
    }


def _memory_encoder(size: ModelSize) -> dict[str, Any]:
    return {
        "_target_": "sam2.modeling.memory_encoder.MemoryEncoder",
        "out_dim": size.memory_dim,
        "in_dim": size.width,
        "position_encoding": _position_encoding(size.memory_dim),
        "mask_downsampler": {
            "_target_": "sam2.modeling.memory_encoder.MaskDownSampler",
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "embed_dim": size.width,
        },
        "fuser": {
            "_target_": "sam2.modeling.memory_encoder.Fuser",
            "num_layers": 2,
            "layer": {
                "_target_": "sam2.modeling.memory_encoder.CXBlock",
                "dim": size.width,
                "kernel_size": 7,
                "padding": 3,
                "layer_scale_init_value": 1e-6,
                "use_dwconv": True,
            },
        },
    }
