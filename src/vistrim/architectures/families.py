"""Index of the model families that need a description of their images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vistrim.architectures import anyres, ernie_vl, glm_v, llava, merged_patches, navit, pixtral, qwen_vl, video_llava
from vistrim.architectures.image_layouts import unknown
from vistrim.architectures.spec import Images

FAMILIES: dict[str, Callable[[Any], Images]] = {
    "llava": llava.images,
    "vipllava": llava.images,
    "llava_next": anyres.llava_next,
    "llava_onevision": anyres.llava_onevision,
    "llava_next_video": anyres.llava_next_video,
    "video_llava": video_llava.images,
    "internvl": merged_patches.internvl,
    "qianfan_ocr": merged_patches.internvl,
    "aya_vision": merged_patches.aya_vision,
    "cohere2_vision": merged_patches.cohere2_vision,
    "gemma3": merged_patches.gemma3,
    "paligemma": merged_patches.paligemma,
    "deepseek_vl": merged_patches.deepseek_vl,
    "janus": merged_patches.janus,
    "ovis2": merged_patches.ovis2,
    "idefics3": merged_patches.idefics3,
    "smolvlm": merged_patches.idefics3,
    "idefics2": merged_patches.idefics2,
    "got_ocr2": merged_patches.without_tower,
    "fast_vlm": merged_patches.without_tower,
    "perception_lm": merged_patches.without_tower,
    "deepseek_vl_hybrid": merged_patches.without_tower,
    "qwen2_vl": qwen_vl.images,
    "qwen2_5_vl": qwen_vl.images,
    "qwen3_vl": qwen_vl.images,
    "qwen3_vl_moe": qwen_vl.images,
    "qwen2_5_omni_thinker": qwen_vl.images,
    "qwen3_omni_moe_thinker": qwen_vl.images,
    "cohere_compass": qwen_vl.images,
    "cosmos3_omni": qwen_vl.images,
    "exaone4_5": qwen_vl.images,
    "hyperclovax_vision_v2": qwen_vl.images,
    "glm4v": glm_v.images,
    "glm46v": glm_v.images,
    "glm4v_moe": glm_v.images,
    "glm_ocr": glm_v.images,
    "mistral3": pixtral.images,
    "lighton_ocr": pixtral.images,
    "paddleocr_vl": navit.paddleocr_vl,
    "video_llama_3": navit.video_llama_3,
    "cosmos3_edge": navit.cosmos3_edge,
    "kimi_k25": navit.kimi_k25,
    "hunyuan_vl": navit.hunyuan_vl,
    "ernie4_5_vl_moe": ernie_vl.images,
}
"""Model type (``config.model_type``) to the function that describes the processing of its images."""


CANNOT: dict[str, str] = {
    "Granite4VisionForConditionalGeneration": "adds image features to its visual tokens between the layers, and cannot "
    "be told which tokens are left",
}
"""Class to behavior that trimming would break and that discovery cannot detect."""


VIDEOS_IN_PLACES_OF_IMAGES = ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")
"""Model types whose prompts use the image placeholder also for videos."""


CUT_BY_PROCESSORS = (
    "aya_vision",
    "cohere2_vision",
    "deepseek_vl_hybrid",
    "gemma3",
    "got_ocr2",
    "idefics2",
    "idefics3",
    "internvl",
    "ovis2",
    "perception_lm",
    "qianfan_ocr",
    "smolvlm",
)
"""Model types whose processors may cut an image into tiles and give these to the model like images."""


def images_of(model: Any) -> Images:
    """Describe the processing of a model's images."""
    describe = FAMILIES.get(model.config.model_type)
    found = Images(shapes=unknown) if describe is None else describe(model)
    return replace(found, parts_unknown=describe is None or model.config.model_type in CUT_BY_PROCESSORS)
