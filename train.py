"""Pretrain a small GPT. This is the only file that mutations edit.

Standalone:       python train.py
In a campaign:    the harness calls build, train and logits, keeps the time and computes the score.
"""

import gc
import zlib

import torch
import torch.nn.functional as F
from torch import nn

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"

# ---------------------------------------------------------------------------------------------
# Hyperparameters: the value for CUDA, then the value for one CPU thread
# ---------------------------------------------------------------------------------------------

# Model
DEPTH = 8 if CUDA else 2  # transformer blocks
WIDTH = 512 if CUDA else 64  # residual stream
HEAD_DIM = 128 if CUDA else 32  # per attention head; divides WIDTH
KV_HEADS = 4 if CUDA else 1  # key/value heads; divides WIDTH // HEAD_DIM
MLP_RATIO = 4 if CUDA else 2  # hidden width of the MLP, in units of WIDTH
WINDOW_PATTERN = "SSSL"  # per layer, repeated: S attends to half the context, L to all of it
ROPE_BASE = 10000  # longest wavelength of the rotary embedding
SOFTCAP = 15.0 if CUDA else None  # logits are bounded to (-SOFTCAP, SOFTCAP)

# Optimization
TOTAL_BATCH_SIZE = 2**19 if CUDA else 2**10  # tokens per optimizer step
DEVICE_BATCH_SIZE = 128 if CUDA else 32  # rows per forward pass, at most
EMBEDDING_LR = 0.6 if CUDA else 0.1  # token and value embeddings (Adam)
UNEMBEDDING_LR = 0.004  # output head (Adam)
MATRIX_LR = 0.04 if CUDA else 0.01  # matrices (Muon)
SCALAR_LR = 0.5 if CUDA else 0.2  # per-layer scalars (Adam)
WEIGHT_DECAY = 0.2  # matrices only, decays to zero with the schedule
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
MUON_MOMENTUM = 0.95
MUON_STEPS = 5  # iterations of the orthogonalization, at most 5
WARMUP_RATIO = 0.0  # fraction of the budget over which the learning rate rises
WARMDOWN_RATIO = 0.4  # fraction of the budget over which the learning rate falls
FINAL_LR_FRAC = 0.0  # final learning rate as a fraction of the peak

# ---------------------------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------------------------


def norm(x):
    """Apply RMS norm without parameters."""
    return F.rms_norm(x, (x.size(-1),))


def has_value_embedding(layer):
    """Return whether a layer has one: every other layer, always including the last."""
    return layer % 2 == (DEPTH - 1) % 2


class Attention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.heads = WIDTH // HEAD_DIM
        self.query = nn.Linear(WIDTH, self.heads * HEAD_DIM, bias=False)
        self.key = nn.Linear(WIDTH, KV_HEADS * HEAD_DIM, bias=False)
        self.value = nn.Linear(WIDTH, KV_HEADS * HEAD_DIM, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate = nn.Linear(32, KV_HEADS, bias=False) if has_value_embedding(layer) else None

    def forward(self, x, value_embedding, rotary, mask):
        B, T, _ = x.shape
        q = self.query(x).view(B, T, self.heads, HEAD_DIM)
        k = self.key(x).view(B, T, KV_HEADS, HEAD_DIM)
        v = self.value(x).view(B, T, KV_HEADS, HEAD_DIM)
        if value_embedding is not None:
            # the gate starts at 1 (its weights are zero) and reads 32 channels of x
            gate = 2 * torch.sigmoid(self.gate(x[..., :32]))
            v = v + gate.unsqueeze(-1) * value_embedding.view(B, T, KV_HEADS, HEAD_DIM)
        heads = norm(rotate(torch.cat((q, k), dim=2), rotary))  # both in one go
        q, k = heads.split((self.heads, KV_HEADS), dim=2)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.heads != KV_HEADS,
        )
        return self.out(y.transpose(1, 2).reshape(B, T, WIDTH))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, MLP_RATIO * WIDTH, bias=False)
        self.down = nn.Linear(MLP_RATIO * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.attention = Attention(layer)
        self.mlp = MLP()

    def forward(self, x, value_embedding, rotary, mask):
        x = x + self.attention(norm(x), value_embedding, rotary, mask)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, vocab_size, seq_len):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.value_embeddings = nn.ModuleDict(
            {
                str(i): nn.Embedding(vocab_size, KV_HEADS * HEAD_DIM)
                for i in range(DEPTH)
                if has_value_embedding(i)
            }
        )
        self.blocks = nn.ModuleList(Block(i) for i in range(DEPTH))
        self.head = nn.Linear(WIDTH, vocab_size, bias=False)
        self.residual_scale = nn.Parameter(torch.ones(DEPTH))
        self.input_scale = nn.Parameter(torch.full((DEPTH,), 0.1))
        cos, sin = rotary_table(seq_len)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("window", window_mask(seq_len), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """Draw each tensor from a random stream of its own, keyed by the seed and its name.

        A change of one tensor then leaves all others as they were, so that two versions of the
        code on one seed differ by less noise.
        """
        bound = 3**0.5 * WIDTH**-0.5
        zero = "attention.out.weight", "attention.gate.weight", "mlp.down.weight"
        for name, weight in self.named_parameters():
            key = zlib.crc32(f"{torch.initial_seed()} {name}".encode())
            stream = torch.Generator().manual_seed(key)
            if name == "embedding.weight":
                nn.init.normal_(weight, std=1.0, generator=stream)
            elif name == "head.weight":
                nn.init.normal_(weight, std=0.001, generator=stream)
            elif name.endswith(zero):
                nn.init.zeros_(weight)
            elif weight.dim() == 2:
                nn.init.uniform_(weight, -bound, bound, generator=stream)

    def forward(self, tokens):
        T = tokens.size(1)
        rotary = self.cos[:T], self.sin[:T]
        x = first = norm(self.embedding(tokens))
        for i, block in enumerate(self.blocks):
            x = self.residual_scale[i] * x + self.input_scale[i] * first
            value_embedding = (
                self.value_embeddings[str(i)](tokens) if has_value_embedding(i) else None
            )
            local = WINDOW_PATTERN[i % len(WINDOW_PATTERN)] == "S" and i < DEPTH - 1
            x = block(x, value_embedding, rotary, self.window[:T, :T] if local else None)
        logits = self.head(norm(x)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP) if SOFTCAP else logits


def rotary_table(seq_len):
    """Return cosines and sines, each (seq_len, 1, HEAD_DIM / 2)."""
    frequency = ROPE_BASE ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angle = torch.arange(seq_len)[:, None] * frequency
    return angle.cos()[:, None, :], angle.sin()[:, None, :]


def rotate(x, rotary):
    cos, sin = rotary
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def window_mask(seq_len):
    """Return a mask, True where a position may attend: itself and the half context before it."""
    position = torch.arange(seq_len)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < max(1, seq_len // 2))


# ---------------------------------------------------------------------------------------------
# Optimizers: Muon for matrices, AdamW for the rest
# ---------------------------------------------------------------------------------------------

# Coefficients of the Polar Express iteration, Amsel et al. 2025 (arXiv:2505.16932)
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(g):
    """Return the nearest (semi-)orthogonal matrices of a stack (n, rows, columns)."""
    x = g.bfloat16() if CUDA else g
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS[:MUON_STEPS]:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon:
    """Orthogonalized momentum for matrices, one stack per shape (Jordan et al. 2024)."""

    def __init__(self, params):
        shapes = {}
        for p in params:
            shapes.setdefault(p.shape, []).append(p)
        self.groups = [
            (ps, torch.zeros(len(ps), *shape, device=DEVICE)) for shape, ps in shapes.items()
        ]

    @torch.no_grad()
    def step(self, scale):
        for params, momentum in self.groups:
            grad = torch.stack([p.grad for p in params])
            momentum.lerp_(grad, 1 - MUON_MOMENTUM)
            update = orthogonalize(grad.lerp_(momentum, MUON_MOMENTUM))
            rows, columns = update.shape[-2:]
            lr = MATRIX_LR * scale * max(1.0, rows / columns) ** 0.5
            stacked = torch.stack([p.detach() for p in params])
            # cautious weight decay: only where it has the sign of the update
            decay = WEIGHT_DECAY * scale * stacked * (update * stacked >= 0)
            for p, delta in zip(params, lr * (update + decay), strict=True):
                p.sub_(delta)


def make_optimizers(model):
    scale = (WIDTH / 768) ** -0.5  # the Adam learning rates were tuned at width 768
    embeddings = [model.embedding.weight, *model.value_embeddings.parameters()]
    groups = [
        {"params": embeddings, "lr": EMBEDDING_LR * scale},
        {"params": [model.head.weight], "lr": UNEMBEDDING_LR * scale},
        {"params": [model.residual_scale, model.input_scale], "lr": SCALAR_LR * 0.1},
    ]
    adam = torch.optim.AdamW(
        groups, betas=(ADAM_BETA1, ADAM_BETA2), eps=1e-10, weight_decay=0.0, fused=True
    )
    for group in adam.param_groups:
        group["peak_lr"] = group["lr"]
    matrices = list(model.blocks.parameters())
    grouped = len(matrices) + sum(len(group["params"]) for group in groups)
    assert grouped == len(list(model.parameters())), "a parameter is in no optimizer, or in two"
    return Muon(matrices), adam


def schedule(progress):
    """Return the learning-rate scale at a fraction of the budget: rise, hold, fall."""
    if progress < WARMUP_RATIO:
        return max(progress, 1e-3) / WARMUP_RATIO
    if progress <= 1 - WARMDOWN_RATIO:
        return 1.0
    left = (1 - progress) / WARMDOWN_RATIO
    return left + (1 - left) * FINAL_LR_FRAC


# ---------------------------------------------------------------------------------------------
# The contract: build, train, logits
# ---------------------------------------------------------------------------------------------


def build(vocab_size, seq_len):
    """Return an untrained model on its device; on CUDA, compiled and warmed up."""
    model = GPT(vocab_size, seq_len).to(DEVICE)
    if CUDA:
        torch.set_float32_matmul_precision("high")
        model.compile(dynamic=False)
        dummy = torch.zeros(DEVICE_BATCH_SIZE, seq_len, dtype=torch.long)
        loss_of(model, dummy, dummy).backward()
        model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
    return model


def loss_of(model, x, y):
    """Return the mean cross entropy in nats per token."""
    x, y = x.to(DEVICE, non_blocking=True), y.to(DEVICE, non_blocking=True)
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=CUDA):
        output = model(x)
    return F.cross_entropy(output.flatten(0, 1), y.flatten())


def train(model, batches):
    """Train until the loader ends, at the end of the budget."""
    seq_len = model.cos.size(0)
    muon, adam = make_optimizers(model)
    rows = max(1, min(DEVICE_BATCH_SIZE, TOTAL_BATCH_SIZE // seq_len))
    accumulate = max(1, TOTAL_BATCH_SIZE // (rows * seq_len))
    report_every = 10 if CUDA else 1  # reading the loss synchronizes the GPU
    gc.collect()
    gc.freeze()  # skip everything allocated so far
    gc.disable()
    for micro_step, (x, y, progress) in enumerate(batches(rows, seq_len), 1):
        loss = loss_of(model, x, y)
        (loss / accumulate).backward()
        if micro_step % accumulate:
            continue
        step = micro_step // accumulate
        if step % report_every == 0:
            value = loss.item()
            if not value < 100:  # also catches NaN
                raise FloatingPointError(f"loss is {value} at step {step}: diverged")
            batches.report(loss=value)
            if step % 100 == 0:
                print(f"step {step:05d} ({progress:5.1%}) loss {value:.4f}", flush=True)
        scale = schedule(progress)
        muon.step(scale)
        for group in adam.param_groups:
            group["lr"] = group["peak_lr"] * scale
        adam.step()
        model.zero_grad(set_to_none=True)


def logits(model, x):
    """Return next-token logits (B, T, vocab_size) of tokens (B, T), each a function of its prefix."""
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=CUDA):
        return model(x.to(DEVICE))


if __name__ == "__main__":
    import prepare

    prepare.run(build, train, logits)
