"""transformers' training step of Mixtral's shape on random weights and tokens, measured as `mixtune bench step` measures
its own: steps for some seconds, then the median of the timed ones. On a GPU in bf16, weights, gradients and moments; on
the CPU in fp32. No auxiliary loss, and no clipping unless it is asked for."""
import dataclasses
import json
import pathlib
import statistics
import time

MIXTRAL_8X7B = dict(vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
                    num_key_value_heads=8, head_dim=128, num_local_experts=8, num_experts_per_tok=2,
                    max_position_embeddings=32768, rope_theta=1e6, rms_norm_eps=1e-5)
SHAPE = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "num_local_experts", "num_experts_per_tok"]


def shape_of(path, layers):
    """The keys of the config.json at `path`, Mixtral 8x7B's without one; what it lacks has transformers' default, as in
    mixtune."""
    import transformers
    shape = json.loads(pathlib.Path(path).read_text()) if path else MIXTRAL_8X7B
    known = [*MIXTRAL_8X7B, "rope_parameters", "sliding_window", "tie_word_embeddings"]
    given = {key: shape[key] for key in known if key in shape}
    config = transformers.MixtralConfig(**given, num_hidden_layers=layers)
    sizes = {key: getattr(config, key) for key in SHAPE}
    return dict(given, **dict(sizes, head_dim=sizes["head_dim"] or config.hidden_size // config.num_attention_heads))


def device_of(name):
    """`cpu`, or else a GPU where there is one."""
    import torch
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


@dataclasses.dataclass
class Work:
    shape: dict  # what transformers.MixtralConfig takes, num_hidden_layers among it
    tokens: int
    document_tokens: int
    accumulate: int = 1
    mode: str = "step"  # or forward, forward-backward
    device: str = "cuda"
    steps: int = 20
    settle: float = 5
    clip: float = 0  # the gradient's norm; 0: not


def flops_per_token(work):
    """Model FLOPs by the formula of docs/design.md, section 6."""
    c = work.shape
    h, q, kv = c["hidden_size"], c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    layer = (h * (q + 2 * kv) + q * work.document_tokens + q * h +
             3 * c["num_experts_per_tok"] * h * c["intermediate_size"])
    return (2 if work.mode == "forward" else 6) * (c["num_hidden_layers"] * layer + h * c["vocab_size"])


def versions():
    import torch
    import transformers
    return {"transformers": transformers.__version__, "torch": torch.__version__}


def make_model(work, implementation):
    """Random weights; `implementation`: of experts."""
    import torch
    import transformers
    torch.manual_seed(0)
    with torch.device(work.device):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.MixtralConfig(**dict(work.shape, use_cache=False)), attn_implementation="sdpa",
            dtype=torch.bfloat16 if work.device == "cuda" else torch.float32, experts_implementation=implementation)
    assert model.config._experts_implementation == implementation
    return model


def make_step(work, model):
    """A function that trains a step of what is trainable in `model`."""
    import torch
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.0, fused=True)
    batches = [torch.randint(0, work.shape["vocab_size"], (work.tokens // work.document_tokens, work.document_tokens),
                             device=work.device) for _ in range(work.accumulate)]

    def step():
        for ids in batches:
            with torch.set_grad_enabled(work.mode != "forward"):
                loss = model(input_ids=ids, labels=ids).loss / work.accumulate
            if work.mode != "forward":
                loss.backward()
        if work.mode == "step":
            if work.clip:
                torch.nn.utils.clip_grad_norm_(trained, work.clip)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def timed(work, step):
    """The milliseconds of one step, by the device's clock."""
    import torch
    if work.device != "cuda":
        start = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def measure_step(work, step):
    """The median milliseconds of a step, and on a GPU this process's peak memory in bytes."""
    import torch
    timed(work, step)
    start = time.monotonic()
    while time.monotonic() - start < work.settle:
        timed(work, step)
    milliseconds = statistics.median(timed(work, step) for _ in range(work.steps))
    return milliseconds, torch.cuda.max_memory_allocated() if work.device == "cuda" else None


def measure(work, name):
    """The same, of training all weights. `name`: an experts implementation, "+compile" behind it for torch.compile."""
    import torch
    implementation, _, compiled = name.partition("+")
    model = make_model(work, implementation)
    return measure_step(work, make_step(work, torch.compile(model) if compiled else model))
