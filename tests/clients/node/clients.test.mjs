// The `ollama` package, unmodified, against a running Arriero at ARRIERO_URL with the models `demo` (answers and ends), `tiny`
// (random weights: fast, never ends by itself) and `embedder` (64 dimensions).

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Ollama } from 'ollama'

const client = new Ollama({ host: process.env.ARRIERO_URL })
const short = { num_predict: 8, seed: 7 }
const hello = [{ role: 'user', content: 'Hello!' }]

async function all(stream) {
  const parts = []
  for await (const part of stream) parts.push(part)
  return parts
}

test('list, show and ps describe the models', async () => {
  const names = (await client.list()).models.map((model) => model.name).sort()
  assert.deepEqual(names, ['demo:latest', 'embedder:latest', 'tiny:latest'])
  const shown = await client.show({ model: 'embedder' })
  assert.deepEqual(shown.capabilities, ['embedding'])
  await client.generate({ model: 'tiny', prompt: 'Hello', options: short })
  const loaded = (await client.ps()).models.map((model) => model.name)
  assert.ok(loaded.includes('tiny:latest'))
})

test('generate streams what it answers at once', async () => {
  const ask = { model: 'tiny', prompt: 'Hello', options: short }
  const whole = await client.generate(ask)
  assert.equal(whole.done_reason, 'length')
  assert.equal(whole.eval_count, 8)
  const parts = await all(await client.generate({ ...ask, stream: true }))
  assert.equal(parts.map((part) => part.response).join(''), whole.response)
  assert.equal(parts.filter((part) => part.done).length, 1)
})

test('chat streams what it answers at once', async () => {
  const ask = { model: 'demo', messages: hello, options: { temperature: 0, num_predict: 40 } }
  const whole = await client.chat(ask)
  assert.equal(whole.message.role, 'assistant')
  assert.ok(whole.message.content.trim())
  const parts = await all(await client.chat({ ...ask, stream: true }))
  assert.equal(parts.map((part) => part.message.content).join(''), whole.message.content)
})

test('chat obeys a schema', async () => {
  const format = {
    type: 'object',
    properties: { sum: { type: 'integer', minimum: 0, maximum: 99 } },
    required: ['sum'],
    additionalProperties: false,
  }
  const answer = await client.chat({ model: 'tiny', messages: hello, format, options: { num_predict: 200, seed: 3 } })
  const { sum } = JSON.parse(answer.message.content)
  assert.ok(Number.isInteger(sum) && sum >= 0 && sum <= 99)
})

test('embed gives one vector per input', async () => {
  const { embeddings } = await client.embed({ model: 'embedder', input: ['the llama', 'a mule'] })
  assert.deepEqual(embeddings.map((vector) => vector.length), [64, 64])
})

test('a stream can be aborted', async () => {
  const stream = await client.generate({ model: 'tiny', prompt: 'Hello', stream: true, options: { num_predict: 20000 } })
  await assert.rejects(async () => {
    for await (const part of stream) if (part.response !== undefined) stream.abort()
  }, { name: 'AbortError' })
})

test('errors surface', async () => {
  await assert.rejects(client.generate({ model: 'nobody', prompt: 'Hello' }), (error) => {
    assert.equal(error.status_code, 404)
    assert.match(error.message, /model 'nobody' not found/)
    return true
  })
  await assert.rejects(client.chat({ model: 'embedder', messages: hello, stream: true }), { status_code: 400 })
})
