"""The `ollama` and `openai` packages, unmodified, against a running Arriero.

ARRIERO_URL says where it is. Its models: `demo` (answers and ends), `tiny` (random weights: fast, sees, never ends by itself) and
`embedder` (64 dimensions).
"""

import base64
import json
import math
import os
import struct
import unittest
import zlib

import ollama
import openai

URL = os.environ["ARRIERO_URL"]
SHORT = {"num_predict": 8, "seed": 7}
HELLO = [{"role": "user", "content": "Hello!"}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def png(red, green, blue):
    """An image of one colour."""
    rows = (b"\0" + bytes([red, green, blue]) * 24) * 16

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 24, 16, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def norm(vector):
    return math.sqrt(sum(number * number for number in vector))


class Ollama(unittest.TestCase):
    def setUp(self):
        self.client = ollama.Client(host=URL)
        self.addCleanup(self.client.close)

    def test_list_and_show(self):
        names = {model.model for model in self.client.list().models}
        self.assertEqual(names, {"demo:latest", "tiny:latest", "embedder:latest"})
        shown = self.client.show("demo")
        self.assertIn("completion", shown.capabilities)
        self.assertEqual(shown.modelinfo["general.architecture"], "llama")
        self.assertEqual(shown.details.format, "gguf")

    def test_ps_lists_what_is_loaded(self):
        self.client.generate("tiny", "Hello", options=SHORT)
        loaded = {model.model: model for model in self.client.ps().models}
        self.assertIn("tiny:latest", loaded)
        self.assertIsNotNone(loaded["tiny:latest"].expires_at)

    def test_generate_streams_what_it_answers_at_once(self):
        whole = self.client.generate("tiny", "Hello", options=SHORT)
        self.assertTrue(whole.done)
        self.assertEqual((whole.done_reason, whole.eval_count), ("length", 8))
        parts = list(self.client.generate("tiny", "Hello", options=SHORT, stream=True))
        self.assertEqual("".join(part.response for part in parts), whole.response)
        self.assertEqual([part.done for part in parts], [False] * (len(parts) - 1) + [True])

    def test_images_are_seen(self):
        message = {"role": "user", "content": "What is it?", "images": [png(200, 30, 30)]}
        blind = self.client.chat("tiny", [{**message, "images": None}], options=SHORT)
        seen = self.client.chat("tiny", [message], options=SHORT)
        self.assertEqual(seen.prompt_eval_count, blind.prompt_eval_count + 16)
        generated = self.client.generate("tiny", message["content"], images=message["images"], options=SHORT)
        self.assertEqual(generated.response, seen.message.content)
        self.assertIn("vision", self.client.show("tiny").capabilities)
        with self.assertRaises(ollama.ResponseError) as caught:
            self.client.generate("tiny", "What is it?", images=[b"no image"])
        self.assertEqual(caught.exception.status_code, 400)

    def test_generate_goes_on_from_a_context(self):
        first = self.client.generate("tiny", "Hello", options=SHORT)
        second = self.client.generate("tiny", "More", options=SHORT, context=first.context)
        self.assertGreater(second.prompt_eval_count, first.prompt_eval_count)

    def test_chat_streams_what_it_answers_at_once(self):
        options = {"temperature": 0, "num_predict": 40}
        whole = self.client.chat("demo", HELLO, options=options)
        self.assertEqual(whole.message.role, "assistant")
        self.assertTrue(whole.message.content.strip())
        parts = list(self.client.chat("demo", HELLO, options=options, stream=True))
        self.assertEqual("".join(part.message.content for part in parts), whole.message.content)
        self.assertTrue(parts[-1].done)

    def test_chat_obeys_a_schema(self):
        answer = self.client.chat("tiny", HELLO, format=PERSON, options={"num_predict": 400, "seed": 3})
        person = json.loads(answer.message.content)
        self.assertEqual(set(person), {"name", "age"})
        self.assertIn(person["age"], range(100))

    def test_embed(self):
        answer = self.client.embed("embedder", ["the llama", "a mule"])
        self.assertEqual([len(vector) for vector in answer.embeddings], [64, 64])
        for vector in answer.embeddings:
            self.assertAlmostEqual(norm(vector), 1, places=4)
        older = self.client.embeddings("embedder", "a mule")
        self.assertEqual(len(older.embedding), 64)

    def test_errors_surface(self):
        with self.assertRaises(ollama.ResponseError) as caught:
            self.client.generate("nobody", "Hello")
        self.assertEqual(caught.exception.status_code, 404)
        self.assertEqual(caught.exception.error, "model 'nobody' not found")
        with self.assertRaises(ollama.ResponseError) as caught:
            list(self.client.chat("embedder", HELLO, stream=True))
        self.assertEqual(caught.exception.status_code, 400)
        with self.assertRaises(ollama.ResponseError) as caught:
            self.client.pull("llama3")
        self.assertEqual(caught.exception.status_code, 501)


class OllamaAsync(unittest.IsolatedAsyncioTestCase):
    async def test_chat_streams(self):
        client = ollama.AsyncClient(host=URL)
        self.addAsyncCleanup(client.close)
        parts = [part async for part in await client.chat("tiny", HELLO, options=SHORT, stream=True)]
        self.assertTrue(parts[-1].done)


class OpenAI(unittest.TestCase):
    def setUp(self):
        self.client = openai.OpenAI(base_url=URL + "/v1", api_key="unused", max_retries=0)
        self.addCleanup(self.client.close)

    def chat(self, **further):
        return self.client.chat.completions.create(
            **{"model": "tiny", "messages": HELLO, "max_tokens": 8, "seed": 7, **further}
        )

    def test_models(self):
        ids = {model.id for model in self.client.models.list()}
        self.assertEqual(ids, {"demo:latest", "tiny:latest", "embedder:latest"})
        self.assertEqual(self.client.models.retrieve("demo").id, "demo")

    def test_chat_streams_what_it_answers_at_once(self):
        whole = self.chat()
        self.assertEqual(whole.choices[0].message.role, "assistant")
        self.assertEqual((whole.choices[0].finish_reason, whole.usage.completion_tokens), ("length", 8))
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 8))

    def test_chat_obeys_a_schema(self):
        form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
        answer = self.chat(response_format=form, max_tokens=400)
        self.assertEqual(set(json.loads(answer.choices[0].message.content)), {"name", "age"})

    def test_chat_gives_choices_and_logprobs(self):
        answer = self.chat(n=2, logprobs=True, top_logprobs=2)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1])
        entries = answer.choices[0].logprobs.content
        self.assertEqual((len(entries), len(entries[0].top_logprobs)), (8, 2))

    def test_images_are_seen(self):
        def content(url):
            return [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]

        data = "data:image/png;base64," + base64.b64encode(png(200, 30, 30)).decode()
        seen = self.chat(messages=[{"role": "user", "content": content(data)}])
        blind = self.chat(messages=[{"role": "user", "content": content(data)[:1]}])
        self.assertEqual(seen.usage.prompt_tokens, blind.usage.prompt_tokens + 16)
        for url in ["https://example.com/a.png", "data:image/png;base64,aGVsbG8="]:
            with self.assertRaises(openai.BadRequestError):
                self.chat(messages=[{"role": "user", "content": content(url)}])

    def test_completions_stream_what_they_answer_at_once(self):
        ask = {"model": "tiny", "prompt": "Hello", "max_tokens": 8, "seed": 7}
        whole = self.client.completions.create(**ask)
        chunks = self.client.completions.create(**ask, stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks if chunk.choices), whole.choices[0].text)

    def test_embeddings(self):
        # Without an encoding_format the package asks for base64 and decodes it itself.
        packed = self.client.embeddings.create(model="embedder", input=["the llama", "a mule"])
        floats = self.client.embeddings.create(model="embedder", input=["the llama"], encoding_format="float")
        self.assertEqual([item.index for item in packed.data], [0, 1])
        self.assertEqual(len(packed.data[0].embedding), 64)
        for one, other in zip(packed.data[0].embedding, floats.data[0].embedding):
            self.assertAlmostEqual(one, other, places=5)

    def test_errors_surface(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.chat(model="nobody")
        self.assertIn("model 'nobody' not found", str(caught.exception))
        with self.assertRaises(openai.BadRequestError):
            self.chat(messages=[])


if __name__ == "__main__":
    unittest.main()
