"""Builds demo.gguf, the model behind `builtin:demo`: corpus -> tokenizer -> training -> GGUF.

    python train.py --out demo.gguf

Everything is seeded and runs on a CPU in under an hour. A run that was stopped goes on with `--resume`; `--export-only`
writes the last checkpoint as a GGUF without training on. See README.md for the recipe.
"""

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import corpus

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
READ = 0.05  # the loss weight of text that the model only reads
EOT, IM_START, IM_END, FIM_PRE, FIM_SUF, FIM_MID = range(len(SPECIAL))

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


# ---------------------------------------------------------------- tokenizer

def train_tokenizer(texts, vocab):
    """Byte-level BPE with GPT-2's pre-tokenisation, which is `tokenizer.ggml.pre = "gpt-2"` in a GGUF.

    Digits are split off while the merges are learned, so no merge spans two digits: every number is read digit by
    digit, which is what lets so small a model add. Encoding uses the plain GPT-2 rules, as llama.cpp does.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.pre_tokenizer = byte_level
    return tok


# ---------------------------------------------------------------- data

def encode(doc, ids_of):
    """A document as (token ids, loss weights). What the model has to say counts, what it reads hardly does. A token of
    a short answer counts for more: a sum is hard and short, a story is long and easy."""
    ids, weights = [], []

    def add(tokens, weight):
        ids.extend(tokens)
        weights.extend([weight] * len(tokens))

    if doc["kind"] == "chat":
        for role, text in doc["turns"]:
            tokens = ids_of(text)
            said = min(1.5, max(0.4, math.sqrt(16 / max(1, len(tokens))))) if role == "assistant" else 0.0
            add([IM_START], 0.0)
            add(ids_of(role + "\n"), 0.0)
            sum_at = text.find(" =") if said else -1
            if sum_at >= 0:  # what a sum comes to is the hard part of it
                add(ids_of(text[:sum_at]), said)
                add(ids_of(text[sum_at:]), 3 * said)
            else:
                add(tokens, said or READ)
            add([IM_END], said)
            add(ids_of("\n"), 0.0)
    elif doc["kind"] == "text":
        add(ids_of(doc["text"]), 1.0)
    else:  # fim
        for token, key, weight in ((FIM_PRE, "prefix", READ), (FIM_SUF, "suffix", READ), (FIM_MID, "middle", 1.0)):
            add([token], 0.0)
            add(ids_of(doc[key]), weight)
    add([EOT], 1.0 if doc["kind"] != "chat" else 0.0)
    return np.array(ids, dtype=np.uint16), np.array(weights, dtype=np.float32)


class Rows:
    """An endless, seeded supply of rows of `length` + 1 tokens. Each row starts with the start of a document, because
    that is what a request looks like; later documents of the row follow an <|endoftext|>."""

    def __init__(self, docs, length, seed):
        self.docs, self.length, self.rng = docs, length, random.Random(seed)
        self.order = []

    def row(self):
        taken, have = [], 0
        while have <= self.length:
            if not self.order:
                self.order = list(range(len(self.docs)))
                self.rng.shuffle(self.order)
            taken.append(self.docs[self.order.pop()])
            have += len(taken[-1][0])
        return [np.concatenate(part)[: self.length + 1] for part in zip(*taken)]

    def batch(self, tokens):
        rows = [self.row() for _ in range(max(1, tokens // self.length))]
        ids = torch.from_numpy(np.stack([r[0] for r in rows]).astype(np.int64))
        weights = torch.from_numpy(np.stack([r[1] for r in rows]))
        return ids[:, :-1], ids[:, 1:], weights[:, 1:]


# ---------------------------------------------------------------- model

class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head = c["heads"], c["kv_heads"], c["dim"] // c["heads"]
        self.attn_norm, self.ffn_norm = nn.RMSNorm(c["dim"], c["eps"]), nn.RMSNorm(c["dim"], c["eps"])
        self.attn_q = nn.Linear(c["dim"], c["dim"], bias=False)
        self.attn_k = nn.Linear(c["dim"], self.kv_heads * self.head, bias=False)
        self.attn_v = nn.Linear(c["dim"], self.kv_heads * self.head, bias=False)
        self.attn_output = nn.Linear(c["dim"], c["dim"], bias=False)
        self.ffn_gate = nn.Linear(c["dim"], c["ffn"], bias=False)
        self.ffn_up = nn.Linear(c["dim"], c["ffn"], bias=False)
        self.ffn_down = nn.Linear(c["ffn"], c["dim"], bias=False)

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        h = self.attn_norm(x)
        q = rope(self.attn_q(h).view(b, t, self.heads, self.head).transpose(1, 2), cos, sin)
        k = rope(self.attn_k(h).view(b, t, self.kv_heads, self.head).transpose(1, 2), cos, sin)
        v = self.attn_v(h).view(b, t, self.kv_heads, self.head).transpose(1, 2)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_output(a.transpose(1, 2).reshape(b, t, d))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


def rope(x, cos, sin):
    """Rotates neighbouring pairs: llama.cpp's order for the architecture `llama`, so the export permutes nothing."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Embedding(c["vocab"], c["dim"])
        self.blk = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.output_norm = nn.RMSNorm(c["dim"], c["eps"])
        head = c["dim"] // c["heads"]
        angle = torch.outer(torch.arange(c["context"]).float(),
                            c["rope_base"] ** (-torch.arange(0, head, 2).float() / head))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * c["layers"]) if deep else 0.02)

    def forward(self, ids):
        x = self.token_embd(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.token_embd.weight)  # tied: the GGUF has no output.weight


def loss_of(model, ids, targets, weights):
    hidden = model(ids).flatten(0, 1)
    targets, weights = targets.flatten(), weights.flatten()
    kept = weights.nonzero().squeeze(1)  # the output layer is a tenth of the work: skip what does not count
    losses = F.cross_entropy(model.logits(hidden[kept]).float(), targets[kept], reduction="none")
    weights = weights[kept]
    said = weights > READ + 1e-6
    return (losses * weights).sum() / weights.sum(), losses[said].mean().item()


# ---------------------------------------------------------------- training

class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz; it needs fewer steps than AdamW does, and steps are what is scarce."""

    def __init__(self, params, lr, momentum=0.95, decay=0.05):
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                buf = self.state[p].setdefault("buf", torch.zeros_like(p))
                buf.mul_(group["momentum"]).add_(p.grad)
                g = p.grad.add(buf, alpha=group["momentum"])
                g = g.T if g.shape[0] > g.shape[1] else g
                g = (g / (g.norm() + 1e-7)).bfloat16()
                for _ in range(5):
                    a = g @ g.T
                    g = 3.4445 * g + (-4.7750 * a + 2.0315 * a @ a) @ g
                g = g.T if p.shape[0] > p.shape[1] else g
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(g.float(), alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))


def train(args, model, docs, workdir):
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("blk")]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and n.startswith("blk"))]
    muon = Muon(matrices, lr=args.lr)
    adam = torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    checkpoint = workdir / "checkpoint.pt"
    start, spent = 0, 0.0
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        start, spent = state["step"], state["spent"]

    # A resumed run shuffles anew, so that it does not read the first documents again.
    rows = {length: Rows(docs, length, args.seed + start) for length in (args.short, args.context)}
    began, saved, shown, running = time.time() - spent, time.time(), time.time(), None
    seen = 0
    for step in range(start, args.steps):
        # Most rows are short, because they are cheap; every eighth step and the last ones use the whole context.
        done = max(step / args.steps, (time.time() - began) / 60 / args.minutes)
        length = args.context if step % 8 == 7 or done >= 1 - args.long_share else args.short
        last = step == args.steps - 1 or done >= 1
        ids, targets, weights = rows[length].batch(args.batch_tokens)
        # Warm up, hold, then fall to nothing over the last half.
        lr = args.lr * min(1.0, (step + 1) / 50, max(0.0, 2 * (1 - done)))
        for optimizer in (muon, adam):
            for group in optimizer.param_groups:
                group["lr"] = lr
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss, said = loss_of(model, ids, targets, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running = said if running is None else 0.95 * running + 0.05 * said
        seen += ids.numel()
        if time.time() - shown > 20 or last:
            shown = time.time()
            print(f"step {step + 1}/{args.steps}, rows of {length}, answer loss {running:.4f}, lr {lr:.1e}, "
                  f"{shown - began:.0f} s, {seen / (shown - began - spent):.0f} tokens/s", flush=True)
        if time.time() - saved > args.save_every or last:
            saved = time.time()
            state = {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(),
                     "step": step + 1, "spent": saved - began, "loss": running}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
        if last:
            break


# ---------------------------------------------------------------- export

def export(path, model, tok, c):
    from gguf import GGMLQuantizationType as Q, GGUFWriter, LlamaFileType, TokenType, quants

    w = GGUFWriter(str(path), "llama")
    params = sum(p.numel() for p in model.parameters())
    w.add_type("model")
    w.add_name("Arriero Demo")
    w.add_description("A tiny chat model that the Arriero project trained on text of its own, for trying things out.")
    w.add_size_label(f"{params / 1e6:.0f}M")
    w.add_license("MIT OR Apache-2.0")
    w.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(2)
    w.add_languages(["en"])
    w.add_vocab_size(c["vocab"])
    w.add_context_length(c["context"])
    w.add_embedding_length(c["dim"])
    w.add_block_count(c["layers"])
    w.add_feed_forward_length(c["ffn"])
    w.add_head_count(c["heads"])
    w.add_head_count_kv(c["kv_heads"])
    w.add_layer_norm_rms_eps(c["eps"])
    w.add_rope_dimension_count(c["dim"] // c["heads"])
    w.add_rope_freq_base(c["rope_base"])

    spec = json.loads(tok.to_str())["model"]
    tokens = sorted(spec["vocab"], key=spec["vocab"].get)
    assert len(tokens) == c["vocab"] and tokens[: len(SPECIAL)] == SPECIAL
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([TokenType.CONTROL if t in SPECIAL else TokenType.NORMAL for t in tokens])
    w.add_token_merges([" ".join(m) for m in spec["merges"]])
    w.add_bos_token_id(EOT)
    w.add_eos_token_id(IM_END)
    w.add_eot_token_id(IM_END)
    w.add_pad_token_id(EOT)
    for add, token in (("pre", FIM_PRE), ("suf", FIM_SUF), ("mid", FIM_MID)):
        w.add_uint32(f"tokenizer.ggml.fim_{add}_token_id", token)
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)

    for name, p in model.named_parameters():
        data = p.detach().float().numpy()
        if p.ndim == 2:
            w.add_tensor(name, quants.quantize(data, Q.Q8_0), raw_dtype=Q.Q8_0)
        else:
            w.add_tensor(name, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"wrote {path}: {Path(path).stat().st_size / 1e6:.2f} MB, {params:,} parameters")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="demo.gguf")
    p.add_argument("--workdir", default="/tmp/arriero-demo", help="tokenizer and checkpoint")
    p.add_argument("--docs", type=int, default=60000, help="documents in the corpus")
    p.add_argument("--vocab", type=int, default=2048)
    p.add_argument("--dim", type=int, default=256)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--heads", type=int, default=8)
    p.add_argument("--kv-heads", type=int, default=4)
    p.add_argument("--ffn", type=int, default=704)
    p.add_argument("--context", type=int, default=2048)
    p.add_argument("--short", type=int, default=256, help="length of the rows of the first phase")
    p.add_argument("--long-share", type=float, default=0.1, help="share of the run, at its end, with whole contexts")
    p.add_argument("--steps", type=int, default=2400)
    p.add_argument("--minutes", type=float, default=50, help="on a slow machine end after this time, with fewer steps")
    p.add_argument("--batch-tokens", type=int, default=4096)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--compile", action="store_true", help="a fifth faster; needs a C++ compiler")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--export-only", action="store_true")
    args = p.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    workdir = Path(args.workdir)
    workdir.mkdir(parents=True, exist_ok=True)

    from tokenizers import Tokenizer
    saved = workdir / "tokenizer.json"
    docs = [] if args.export_only else corpus.build(args.docs, args.seed)
    if (args.resume or args.export_only) and saved.exists():
        tok = Tokenizer.from_file(str(saved))
    else:
        tok = train_tokenizer((t for d in docs for t in corpus.texts(d)), args.vocab)
        tok.save(str(saved))
    c = {"vocab": tok.get_vocab_size(), "dim": args.dim, "layers": args.layers, "heads": args.heads,
         "kv_heads": args.kv_heads, "ffn": args.ffn, "context": args.context, "eps": 1e-5, "rope_base": 10000.0}
    model = Llama(c)
    if args.export_only:
        model.load_state_dict(torch.load(workdir / "checkpoint.pt")["model"])
    else:
        ids_of = lambda text: tok.encode(text, add_special_tokens=False).ids
        encoded = [encode(d, ids_of) for d in docs]
        total = sum(len(ids) for ids, _ in encoded)
        print(f"{len(docs):,} documents, {total:,} tokens, vocabulary {c['vocab']}", flush=True)
        if args.compile:
            model.forward = torch.compile(model.forward, dynamic=False)
        train(args, model, encoded, workdir)
    export(args.out, model, tok, c)


if __name__ == "__main__":
    main()
