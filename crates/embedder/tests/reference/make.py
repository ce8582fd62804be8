"""Writes reference.json: embeddings of all-MiniLM-L6-v2 from an independent implementation.

Uses Hugging Face's tokenizer, and computes the network in float64.
    pip install numpy tokenizers; python make.py .venv/models/all-minilm-l6-v2
Only the first dimensions are stored: any difference in tokens or layers changes all of them.
"""

import json
import math
import struct
import sys
from pathlib import Path

import numpy
from tokenizers import Tokenizer

WINDOW = 256
DIMENSIONS_STORED = 24
PARAGRAPH = (
    "The boundary layer on a flat plate thickens with distance from the leading edge, and at a "
    "Reynolds number of about 500,000 it becomes turbulent; roughness (or noise) hastens this. "
)

TEXTS = [
    "",
    "   \n\t ",
    "This is an example sentence",
    "The weather is lovely today.",
    "UPPER lower MiXeD CamelCase snake_case kebab-case",
    "Ångström, naïve café, Übermut, Łódź, İstanbul, Ŀ, ǅ, ﬁligree, Ⅷ, ½",
    "cafe\u0301 e\u0302\u0323 decomposed accents; zero\u200bwidth, soft\u00adhyphen, \ufeffmark",
    "我们在北京学习自然语言处理。 東京タワーへ行きました。 안녕하세요 세계",
    "Привет, мир! Γειά σου Κόσμε. שָׁלוֹם עוֹלָם مَرْحَبًا بِالْعَالَم नमस्ते दुनिया สวัสดีชาวโลก",
    "🤗 🚀🚀 👩‍👩‍👧‍👦 ☃️ 🇨🇭 and 🫠 at the end",
    "$5.00 + €3,50 = £7.20? «quoted» “curly” ‘single’ — en–dash … 100% @user #tag a/b\\c ~^|`<>",
    "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism",
    "a" * 100 + " " + "a" * 101 + " " + "0123456789" * 11,
    "https://example.org/path?query=1&other=%20two#part user@example.org 192.168.0.1",
    'fn main() { println!("{:?}", vec![1, 2, 3].iter().map(|x| x * 2).collect::<Vec<_>>()); }',
    "\x00null \x07bell \x0bvertical \x85next \u2028line \ufffdreplaced \ue000private \u00a0nbsp",
    "𝐁𝐨𝐥𝐝 𝓼𝓬𝓻𝓲𝓹𝓽 𠀀𠀁 ｆｕｌｌ－ｗｉｄｔｈ ①②③ ʰʷ ẞß ſ K Å",
    PARAGRAPH,
    "word " * 254,
    "word " * 255,
    PARAGRAPH * 20,
]


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, place in header.items():
        if name != "__metadata__" and place["dtype"] == "F32":
            start, end = place["data_offsets"]
            numbers = numpy.frombuffer(data[8 + length + start : 8 + length + end], "<f4")
            tensors[name] = numbers.reshape(place["shape"]).astype(numpy.float64)
    return tensors


class Network:
    def __init__(self, folder):
        self.tensors = read_safetensors(folder / "model.safetensors")
        self.config = json.loads((folder / "config.json").read_text())

    def dense(self, name, x):
        return x @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        spread = numpy.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return centred / spread * self.tensors[name + ".weight"] + self.tensors[name + ".bias"]

    def __call__(self, tokens):
        """The output of the last layer for each token."""
        table = "embeddings.{}_embeddings.weight"
        x = self.tensors[table.format("word")][tokens]
        x = x + self.tensors[table.format("position")][: len(tokens)]
        x = x + self.tensors[table.format("token_type")][0]
        x = self.norm("embeddings.LayerNorm", x)
        heads = self.config["num_attention_heads"]
        erf = numpy.vectorize(math.erf)
        for layer in range(self.config["num_hidden_layers"]):
            name = f"encoder.layer.{layer}."
            query, key, value = (
                self.dense(f"{name}attention.self.{part}", x).reshape(len(tokens), heads, -1)
                for part in ("query", "key", "value")
            )
            scores = numpy.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[-1])
            weights = numpy.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            context = numpy.einsum("hqk,khd->qhd", weights, value).reshape(x.shape)
            context = self.dense(f"{name}attention.output.dense", context)
            x = self.norm(f"{name}attention.output.LayerNorm", x + context)
            inner = self.dense(f"{name}intermediate.dense", x)
            inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
            x = self.norm(f"{name}output.LayerNorm", x + self.dense(f"{name}output.dense", inner))
        return x


def embed(network, tokenizer, text):
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    windows = max(1, math.ceil(len(tokens) / (WINDOW - 2)))
    total = 0
    for at in range(windows):
        window = tokens[len(tokens) * at // windows : len(tokens) * (at + 1) // windows]
        total = total + network([start, *window, end]).sum(0)
    return total / numpy.linalg.norm(total)


def main():
    folder = Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    network = Network(folder)
    lines = []
    for text in TEXTS:
        vector = [round(number, 6) for number in embed(network, tokenizer, text)[:DIMENSIONS_STORED]]
        lines.append(json.dumps({"text": text, "vector": vector}))
    target = Path(__file__).with_name("reference.json")
    target.write_text("[\n" + ",\n".join(lines) + "\n]\n")


main()
