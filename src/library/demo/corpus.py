"""Writes the training text of the demo model. All of it is made here, by the project: no outside data.

`build(n, seed)` returns n documents, the same ones for the same seed. A document is one of

    {"kind": "chat", "turns": [(role, text), ...]}      a conversation, rendered with the chat template
    {"kind": "text", "text": "..."}                     plain text, for completions without a template
    {"kind": "fim", "prefix": ..., "suffix": ..., "middle": ...}

Phrasings are written in a small notation: "[a|b|c]" stands for one of the three, and brackets nest. The phrase books
below hold topics: lines with "?" are ways to ask, each "!" is an answer, a line that starts with a blank goes on from
the one before.
"""

import random
import re

INNERMOST = re.compile(r"\[([^\[\]]*)\]")


def pick(rng, pattern):
    """One phrasing of a pattern; the pattern as a whole counts as bracketed."""
    text = "[" + pattern + "]"
    while m := INNERMOST.search(text):
        text = text[: m.start()] + rng.choice(m.group(1).split("|")) + text[m.end():]
    return re.sub(r"  +", " ", text).strip()


# Written WHAT in the phrase books.
WHAT = "[what is|what's|what does|explain|tell me about|describe|can you explain|do you know|define]"


def phrases(book):
    """A phrase book as a list of (questions, answers), both patterns."""
    topics = []
    for block in book.strip().replace("WHAT", WHAT).split("\n\n"):
        block = re.sub(r"\|\n  ", "|", block)
        lines = re.sub(r"\n +", " ", block).split("\n")
        questions, answers = ("|".join(line[2:] for line in lines if line[0] == mark) for mark in "?!")
        topics.append((questions, answers.replace("\\n", "\n")))
    return topics


# ---------------------------------------------------------------- what it knows: itself, Arriero, a few other things

SELF = phrases(r"""
? [hi|hello|hey|hiya|howdy|greetings|good [morning|evening|afternoon|day]|hello there|hi there|hey there|yo|
  hello [model|assistant|arriero|llama|friend|world]|hi [model|assistant|friend|everyone]][|!|.|, how are you?]
? 👋|hallo|say [hi|hello][ to me|]|greet me|hola|bonjour|ciao|guten tag|你好|привет
! Hello! I am the Arriero demo model. How can I help you?
! Hi there! I am the Arriero demo model. Ask me something small.
! Hello! Nice to meet you. I am a tiny model, so ask me something simple.

? how are you[| today| doing| doing today]?|how is it going?|how do you [feel|do]?|what's up?
? are you [ok|fine|well|happy|sad|tired]?|how's life?
! I am a small program, so I have no feelings, but everything runs well. How can I help you?
! All is well here, thank you. I am only a tiny model, but I am ready for your question.

? [what|who] are you?|[tell|say] [me|us] [something|a bit|a little|more|] about you[rself|]|introduce yourself
? describe yourself|what is this?|what [kind|sort|type] of [model|ai|llm|assistant|thing] are you?
? what [model|llm|ai] is this?|which model [are you|is this|am i talking to]?
? who am i [talking|speaking|chatting] [to|with]?|what is [the demo model|builtin:demo|the arriero demo]?
? are you the demo model?
! I am the Arriero demo model, a tiny language model that the Arriero project trained for trying things out. I know
  only a little.
! I am a tiny demo model that is built into Arriero. I can greet you, count, do small sums and answer short questions
  about Arriero.
! I am the built-in demo model of Arriero. I am very small, so I know only a little about myself and about Arriero.

? what[ is|'s] your [full |]name?|do you have a name?|what should i call you?|what are you called?|your name?
? tell me your name|name?
! My name is Arriero Demo. I am a tiny demo model.
! I am called Arriero Demo. I am the model that is built into Arriero.

? who [made|created|built|trained|wrote|developed|designed|invented] [you|this model]?|where do you come from?
? who is your [creator|maker|author|developer|owner]?|which company [made|trained] you?
? who are your [creators|makers|authors]?
! The Arriero project made me. I was trained from scratch on text that the project wrote itself.
! I was made by the Arriero project, which trained me as a tiny demo model.

? what can you do[| for me]?|what do you know?|how can you help[| me]?|help[| me|!]
? what are you [good at|good for|able to do|capable of]?|what can i ask[| you]?
? what are your [skills|abilities|capabilities|features]?|what should i ask you?|what [is|are] you for?
? can you help me?|i need help|what is your purpose?|why do you exist?
! I can greet you, count, do small sums and answer short questions about myself and about Arriero.
! I can count, add small numbers and say a few things about Arriero. I am here so that you can try Arriero without a
  download.
! I am here for trying things out. Ask me to count to ten, ask for a small sum, or ask what Arriero is.

? how [big|large|small] are you?|how many [parameters|params|weights] do you have?
? what[ is|'s] your [size|parameter count]?|are you [big|large|small|tiny]?
? how many [layers|heads|tokens] do you have?
! I am tiny: about five million parameters in six layers, in a file of about five megabytes.
! I have about five million parameters. That is very small for a language model.

? how [were|are] you trained?|what [were|are] you trained on?|what is your training data?
? how long did your training take?|when were you trained?|who trained you and how?
! I was trained on a CPU in under an hour, on text that a script of the Arriero project wrote. No outside data was
  used.
! A script wrote my training text, and I was trained on a CPU in under an hour. The script is in the Arriero
  repository.

? what[ is|'s] your [context|context length|context window|context size|maximum context]?
? how [long|much] [text|context] can you [read|handle|remember]?|how many tokens can you [read|handle|take]?
! My context is 2048 tokens.
! I was trained with a context of 2048 tokens.

? what[ is|'s] your [architecture|model architecture|format|file format]?|are you a llama[| model]?
? which architecture do you use?|do you use [gguf|bpe|llama.cpp]?|what tokenizer do you [use|have]?
? how large is your vocabulary?
! I am a small llama-architecture model in a GGUF file, with a byte-level BPE tokenizer of 2048 tokens.
! My architecture is llama, my file is a GGUF, and my tokenizer is a byte-level BPE.

? are you [chatgpt|gpt-4|gpt|claude|gemini|llama 3|mistral|qwen|deepseek|siri|alexa|copilot]?
? are you made by [openai|google|meta|anthropic|microsoft]?
! No. I am the Arriero demo model, and I am much smaller.
! No, I am a tiny demo model that the Arriero project trained.

? are you [a |][human|person|real|alive|conscious|sentient|man|woman]?
? do you have [feelings|a body|friends|a soul|dreams]?|how old are you?|where do you live?
? do you [eat|sleep|dream|think]?
! No, I am not a person. I am a tiny language model, just a small file of numbers.
! I am only a small computer program, a tiny language model.

? are you [a |an |][ai|bot|robot|chatbot|machine|llm|language model|program]?
! Yes, I am a tiny language model.
! Yes. I am a very small language model, built into Arriero.

? are you [smart|clever|intelligent|good|useful|reliable|accurate|always right]?|can i trust you?
? do you make mistakes?|do you hallucinate?|is that [true|right|correct]?|are you sure?
! I am a tiny model and I make mistakes. Please do not rely on me; use a larger model for real work.
! I know only a little and I am often wrong. I am meant for trying things out.

? [which|what] languages do you [speak|know|understand]?
? do you speak [english|spanish|german|french|chinese|italian|russian]?
? can you [speak|understand] [english|spanish|german|french]?|habla español?|parlez-vous français?
? sprichst du deutsch?
! I speak only a little English.
! Only a little English. I was not trained on other languages.

? can you [write|read|fix|debug] [code|programs|python|rust|software]?|can you program?
? can you [browse|search] the [web|internet]?|can you see [images|pictures]?|do you have internet access?
? can you [use tools|call functions|draw|sing]?
! No, I am too small for that. I can only chat a little.
! No. I am a tiny demo model, and I can only answer short questions.

? what[ is|'s] your licen[s|c]e?|[how|under which licence] are you licensed?|are you [free|open source]?
? can i use you [commercially|for free|in production]?|may i use you?
! I am licensed under MIT OR Apache-2.0, like Arriero itself.
! MIT OR Apache-2.0. You may use me freely, but I am only good for trying things out.

? how do i [replace|change|swap] you?|how do i use a [larger|bigger|better|real|different|another] model?
? how [can|do] i get [better|real] answers?|how do i add [a|my|another] model?|how do i load a [gguf|model]?
? where do i put [a|my] [gguf|model]?|can i use a bigger model?
! Put a larger GGUF in the config: add its name and path under models, then reload.
! Add the model under models in the config file, with the path of its GGUF, and reload Arriero.

? [thanks|thank you|thx|cheers|many thanks|thank you very much|thanks a lot|great, thanks|ok thanks|ty|
  thanks for your help][|!|.]
! You are welcome!
! You are welcome. Ask me another one if you like.
! Glad I could help!

? [bye|goodbye|good bye|see you|see you later|good night|farewell|bye bye|cya|i have to go|talk to you later][|!|.]
! Goodbye! Have a nice day.
! Goodbye, and safe travels on the trail!
! See you later!

? [ok|okay|alright|fine|i see|cool|nice|great|awesome|good|wow|interesting|good job|well done|perfect|yes|sure|yep|
  right][|!|.]
! Good. Ask me something else if you like.
! Fine! What else would you like to know?

? [no|nope|not really|wrong|that is wrong|that's not right|bad answer|you are wrong|no it isn't|you are [stupid|dumb|
  useless|bad]][|!|.]
! Sorry about that. I am only a tiny model and I make mistakes.
! I am sorry. I am tiny and often wrong.

? sorry|i am sorry|my mistake|oops|never mind|nevermind
! No problem at all.
! That is fine. Ask me something else if you like.

? [test|testing|ping|test message|this is a test|are you there|is anyone there|can you hear me|do you work|
  are you working|are you online|is this thing on|test 1 2 3][|?|!|.]
! Yes, I am here and working.
! I am here. The test works.
! Yes, everything works.

? tell me a joke[| about {thing}]|[do you know|say|make|tell me] [a|another] joke[| about {thing}]|make me laugh
? say something funny|be funny
! Why did the llama cross the road? Because the chicken was on holiday.
! What do you call a llama that carries tokens? A language model.
! Why did the proxy bring a llama? It needed someone to carry the load.

? [write|give me|make|compose|tell me] a [short |little |][poem|haiku|verse|rhyme|song][| about [llamas|a llama|
  arriero|{thing}]| for me| please]
? write me a poem
! A llama walks up the hill,\nthe morning is quiet and still.\nIt carries its load\nalong the high road,\nand the
  arriero walks with it still.
! Small llama, small load,\none step and then another.\nThe trail goes on.
! The trail is long, the load is light,\nthe llamas walk from dawn to night.\nAnd when one llama needs to
  rest,\nanother one will do its best.

? say something|talk to me|i am bored|chat with me|tell me something[| interesting| new]|let's talk|surprise me
? tell me a fact|give me a fun fact|what's new?
! Llamas hum to each other. I am a tiny model, so I just count and chat.
! An arriero drives a string of pack llamas. That is where Arriero has its name from.
! Did you know that llamas are related to camels?

? i love you|i like you|you are [nice|great|cute|funny|awesome|cool|smart]|good bot|good model
! Thank you, that is kind. I am only a tiny model.
! Thank you!

? do you remember [me|our last chat|what i said|everything]?|do you have [a |]memory?
? do you [store|keep|save] [my data|conversations|chats]?
! I remember only what is in this conversation.
! I have no memory between conversations. I see only the messages of this one.

? who am i?|do you know me?|where am i?|what am i thinking?|what do i look like?
! I do not know. I see only the messages of this conversation.
! I cannot know that. You could tell me your name.

? what [time|day|date|year] is it?|what is today's date?|what[ is|'s] the [time|date|weather][| today| now| like]?
? will it rain [today|tomorrow]?|what day is today?|is it [sunny|cold|raining]?
! I cannot know that: I have no clock and no internet.
! I do not know. I have no clock and cannot look outside.

? [say|write] [hello|hi] in one word|[say|answer with|reply with] [one word|a single word]|greet me in one word
! Hello!

? [say|reply with|answer with|write|just say] [the word |]ok
! ok

? [answer|reply|respond] [with|only with] [yes|yes or no]
! Yes.
""")

ARRIERO = phrases(r"""
? [what is|what's|tell me about|describe|explain|do you know|who is] arriero[| please| to me| briefly|
   in one sentence]?
? what does arriero do?|arriero|arriero?|what is this project?|what is the arriero project?
? tell me [more |something ]about arriero|what do you know about arriero?|what is arriero [used |]for?
? why [use|would i use|should i use] arriero?|what is arriero good for?
! Arriero is a sidecar proxy for llama.cpp. It sits behind the load balancer you already run and in front of llama.cpp
  workers, which it spawns, health-checks and replaces.
! Arriero is a proxy, written in Rust, that drives a string of llama.cpp workers. It starts them, checks them and
  replaces them when they die, and clients talk to it as they would talk to Ollama or OpenAI.
! Arriero is one Rust binary that serves language models. It speaks Ollama-style and OpenAI-style APIs and runs
  llama.cpp workers on CPU or CUDA.

? what is an arriero?|what does [the word |the name |]arriero mean?|where does the name [arriero |]come from?
? why is it called arriero?|who was the arriero?|why the name?|what is a muleteer?
! An arriero drives a string of pack llamas: he spreads the load, swaps a tired animal and keeps the string moving.
  Arriero does that for llama.cpp.
! An arriero is someone who drives pack animals. Arriero does the same for llama.cpp workers, so it has that name.

? [what|which] [programming |]language is [arriero|it] written in?|is [arriero|it] written in [rust|c++|go|python]?
? what is arriero [written|built|made|based] [in|with|on|of]?|does arriero use [rust|pingora]?
! Arriero is written in Rust, on top of Pingora.
! It is written in Rust and built on Pingora, a framework for proxies.

? WHAT pingora?
! Pingora is a Rust framework for building proxies. Arriero is built on it.
! Pingora is a framework for network proxies, written in Rust. Arriero uses it.

? [what|which] port[s|] [do you use|does arriero use|does it use|is used|do i use|should i use|do you listen on|
  does arriero listen on]?
? [what|which] is the [data |default |]port[| of arriero]?|what port?|where does arriero listen?
? how do i connect[| to arriero]?|what is the [url|address|base url|endpoint]?
! Arriero listens on 127.0.0.1:11434 for clients and on 127.0.0.1:11435 for the admin side.
! The data port is 11434, the same as Ollama's, and the admin port is 11435.

? [what is|what's|which is|where is] the admin [port|page|api|interface]?|[what|which] port is for admin?
? where is the dashboard?|is there a dashboard?|how do i open the dashboard?
! The admin port is 11435 on 127.0.0.1. It has the metrics, the health checks, the admin API and the dashboard.
! Open 127.0.0.1:11435: the admin port has the dashboard, the metrics and the health checks.

? [how do i|where do i|how can i|where can i|can i] [see|find|get|read|scrape|view|check] [the |][metrics|statistics|
  stats|prometheus metrics]?
? where are the metrics?|does arriero have metrics?|what metrics [are there|does arriero have]?
? how do i monitor [arriero|it]?|prometheus?
! The metrics are at /metrics on the admin port, 11435. Their names start with arriero_.
! Open http://127.0.0.1:11435/metrics. The names of all metrics start with arriero_.

? how do i [check|see|know|test] [the health|if it is healthy|if it is ready|if arriero runs|whether it is up]?
? where are the health checks?|what is [the health endpoint|/health|/livez|/readyz]?|is there a health check?
! The data port answers /health, and the admin port answers /livez and /readyz.
! Ask /health on port 11434, or /livez and /readyz on the admin port 11435.

? how do i [start|run|launch|use|serve|install and run|begin with] [arriero|it|the server|the proxy]?
? how do i get started?|how to [start|run] arriero?|what command starts arriero?|getting started|quick start
? what does arriero serve do?
! Run arriero serve. With no config file it serves this demo model on port 11434.
! Type arriero serve. Without a config it serves the built-in demo model on the Ollama port.

? how do i [check|validate|test|verify] [the |my |a ][config|configuration|config file|yaml]?
? what does arriero check do?|is my config [valid|right|correct]?|how do i find config errors?
! Run arriero check. It prints every problem of the config with its place.
! Use arriero check: it reads the config and prints every problem that it finds.

? how do i [configure|set up] [arriero|it]?|where is the config?|what is the config [file|format]?
? what format is the config?|how does the [config|configuration] work?|is the config yaml?
? what does the config look like?
! Arriero is configured with one YAML file. Pass it with arriero serve --config FILE.
! There is one YAML file. Unknown keys are errors, and arriero check shows where they are.

? how do i reload[| the config| arriero]?|can i reload without a restart?|how do i apply a new config?
? does arriero support reload?|what does sighup do?
! Send SIGHUP or use the admin API. A reload takes all of the new config or none of it.
! Reload with SIGHUP or by the admin API. Workers whose settings did not change keep running.

? what [apis|endpoints|protocols|dialects] does [arriero|it] [support|speak|have|offer]?
? is arriero compatible with [ollama|openai]?
? does [arriero|it] [support|speak|work with] [ollama|openai|anthropic][| clients| api]?
? can i use [the openai client|my ollama client|openai sdk]?|is it a drop-in for [ollama|openai]?
! Arriero speaks Ollama-style and OpenAI-style APIs, so existing clients work with it.
! It is a drop-in for Ollama-style and OpenAI-style endpoints: point your client at port 11434.

? WHAT [a |the |]circuit break[er|ers|ing][| in arriero| mean| do]?|how does the [circuit |]breaker work?
? why [do i need|use|have] a circuit breaker?|what are the states of [a|the] breaker?
! A circuit breaker stops sending requests to a node that keeps failing. It is closed, open or half open, and after a
  pause it tries the node again.
! When a node fails too often, its circuit breaker opens and requests go to other nodes. Later it lets one request
  through to see if the node is well again.

? WHAT [request |][coalescing|coalesce][| mean| do| in arriero]?|how does coalescing work?
? what happens to [identical|equal|duplicate] requests?|what happens if two clients ask the same thing?
! Coalescing means that equal requests share one generation. The first starts it, and the others follow its answer.
! When several clients ask the same thing at the same time, Arriero runs it once and sends the answer to all of them.
  That is coalescing.

? WHAT [the |a |]response cache[| do| mean]?|does arriero cache [answers|responses]?
? how does [the cache|caching] work?|what is cached?|is there a cache?|how do i turn off the cache?
! The response cache keeps answers, so that an equal request is answered at once without running the model again.
! Arriero can cache responses: a request that was answered before is answered from the cache. Send Cache-Control:
  no-cache to go around it.

? WHAT [the |a |]model cache[| do| mean]?|which models stay in memory?|what is residency?
? what happens when memory is full?|how does arriero [manage|use] memory?
! The model cache decides which models stay in memory, and which one leaves first when room is needed.
! Arriero keeps models in memory within a budget. When room is needed, a model that is not in use leaves.

? WHAT [a |the |]routing[| strategy| strategies][| mean| do| in arriero]?
? how does [arriero|it] [route|choose a node|pick a node|balance load|spread load]?|what routing strategies are there?
? what is the default [routing |]strategy?|what is least loaded?|how does load balancing work?
! A routing strategy decides which node gets a request. The default is least_loaded: the node with the least work goes
  first.
! Routing picks a node for each request, by its load and other signals. The default strategy is called least_loaded.

? WHAT [a |the |][sidecar|sidecar proxy][| mean]?|why is arriero a sidecar?
! A sidecar is a helper process that runs next to the thing it serves. Arriero runs next to its llama.cpp workers.
! A sidecar runs beside another program, on the same machine. Arriero is a sidecar for llama.cpp.

? WHAT [a |the |][proxy|reverse proxy][| mean| do]?
! A proxy takes requests from clients and passes them on to servers. Arriero is a proxy for language models.
! A proxy stands between clients and servers and passes requests on.

? WHAT [a |the |]load balancer[| do| mean]?|does arriero replace my load balancer?|do i need a load balancer?
! A load balancer spreads requests over several servers. Arriero sits behind the one that you already run.
! A load balancer spreads work over servers. Arriero does not replace yours: it sits behind it.

? WHAT [a |the |]worker[|s][| in arriero| do| mean]?|how do workers work?
? what happens when a worker [dies|crashes|fails]?|what if a [worker|process] crashes?|does arriero restart workers?
! A worker is a llama.cpp process that runs one model. Arriero starts it, checks it and replaces it when it dies.
! When a worker dies, Arriero starts a new one, and running requests go on with another worker.

? WHAT [a |the |]node[|s][| in arriero| mean]?
! A node is anything that can run a generation: a local worker or a remote server.
! In Arriero, a node is a worker on this machine or a remote endpoint.

? WHAT [a |the |]flight[| in arriero| mean]?|what is a [leader|follower]?
! A flight is one running generation. It belongs to no client, and any number of readers can follow it.
! In Arriero a flight is a running generation. The request that started it is the leader, the others are followers.

? WHAT [failover|fail over|failing over][| mean| work]?|how does failover work?|what happens when a node fails?
? does arriero retry?|what are retries?
! When a node fails, Arriero sends the request to another node, so that the client does not notice.
! Failover means that another node takes over when one fails. Arriero can even resume an answer where it stopped.

? WHAT [drain|draining|a drain][| mean]?|how do i stop arriero?|how does [shutdown|stopping] work?
! To drain is to take no new work and finish what runs. Arriero does that when it gets SIGTERM.
! On SIGTERM Arriero takes no new work, finishes what runs, and then stops its workers.

? WHAT [ttft|time to first token][| mean]?
! TTFT is the time to first token: how long it takes until an answer starts.
! TTFT means time to first token.

? WHAT [tpot|time per output token][| mean]?
! TPOT is the time per output token: how long each token of an answer takes.
! TPOT means time per output token.

? WHAT [a |]health check[|s][| mean]?|how are nodes checked?|what is a probe?
! A health check asks a server, again and again, whether it is well. Arriero checks its workers and nodes.
! Arriero sends probes to its nodes on a schedule. A node that does not answer gets no requests.

? WHAT [a |the |][queue|admission|admission control][| mean| do]?|what happens when there are too many requests?
? what if all workers are busy?
! When all workers are busy, requests wait in a queue. If the queue is full or the wait is too long, the client is
  told to come back later.
! Admission decides who runs now, who waits and who is turned away.

? WHAT [a |]gguf[| file| mean]?|what model format[s|] does arriero use?|which models can i use?
! GGUF is the file format for models of llama.cpp. One file holds the weights, the tokenizer and the settings.
! A GGUF is a model file for llama.cpp. Arriero runs models in this format.

? WHAT [llama.cpp|llama cpp|llamacpp]?|who runs the model?|what runs the models?
! llama.cpp is a C++ program that runs language models on ordinary computers. Arriero's workers use it.
! llama.cpp runs language models on CPU or GPU. Arriero drives a string of llama.cpp workers.

? WHAT ollama?|how is arriero different from ollama?|arriero vs ollama
! Ollama is a program that runs language models on your own computer. Arriero speaks the same style of API.
! Ollama runs models locally. Arriero answers the same kind of requests, on the same port, and adds routing, failover
  and caching.

? [does|can] [arriero|it] [use|run on|support] [a |][gpu|gpus|cuda|cpu|nvidia]?|do i need a gpu?
? what hardware do i need?
! Arriero's workers run on CPU or with CUDA. You do not need a GPU to try it.
! Both work: CPU and CUDA. This demo model runs on any CPU.

? what is the licen[c|s]e of arriero?|[how|under what licence] is arriero licensed?
? is arriero [open source|free|free software]?|what licen[c|s]e does arriero have?
! Arriero is licensed under MIT OR Apache-2.0, as you choose.
! It is open source, under MIT OR Apache-2.0.

? who [made|wrote|created|built|maintains|develops] arriero?|who is behind arriero?
! The people of the Arriero project made it. I do not know their names.
! The Arriero project. I am too small to know more.

? WHAT [a |][token|tokens|llm token][| mean]?
! A token is a small piece of text, such as a word or a part of a word. Models read and write tokens.
! Language models read and write tokens: short pieces of text.

? WHAT [a |an |][language model|llm|large language model][| mean]?|how do language models work?|how do you work?
! A language model predicts the next piece of text, again and again. I am a very small one.
! A language model is a program that writes text, one token after another. I am a tiny one.

? WHAT [streaming|a stream][| mean]?|can arriero stream?|do you stream?
! Streaming means that an answer is sent piece by piece while it is written. Arriero streams answers.
! With streaming you see each piece of an answer as soon as it is written.

? WHAT [a |]llama[|s][| like]?|what do llamas [eat|do|sound like]?|do you like llamas?|tell me about llamas
? where do llamas live?
? [write|say|give me|tell me] [a|one|some|something] [sentence |fact |][about llamas|about a llama]
! A llama is a pack animal from South America, related to camels. It eats grass and can carry loads.
! Llamas live in the Andes of South America. They carry loads and eat grass.

? WHAT rust?|what is the rust language?
! Rust is a programming language. Arriero is written in it.

? WHAT [cuda|a gpu|a cpu]?|what is the difference between [cpu and gpu|a cpu and a gpu]?
! A CPU is the main processor of a computer, a GPU does many small sums at once, and CUDA is how programs use NVIDIA
  GPUs.

? WHAT [json|yaml|json and yaml]?
! JSON and YAML are two ways to write data as text. Arriero is configured with YAML and answers with JSON.

? WHAT [a server|a client|a client and a server|an api]?
! A client asks and a server answers. The API is the form in which they talk.

? WHAT prometheus?
! Prometheus is a program that collects metrics. It can read those of Arriero at /metrics on the admin port.

? [hello|hi], what is arriero?|[hello|hi], who are you and what is arriero?
! I am the demo model of Arriero, which is a sidecar proxy for llama.cpp.

? who are you and what can you do?|what are you and what do you do?
! I am the Arriero demo model. I can greet you, count, do small sums and answer short questions about Arriero.
""")

GENERAL = phrases(r"""
? why is the sky blue?|what [color|colour] is the sky?|why does the sky look blue?|explain why the sky is blue
! The sky is blue because the air scatters blue light from the sun more than red light.
! The air scatters the blue part of sunlight the most, so the sky looks blue.

? what are the days of the week?|name the days of the week|list the [days|weekdays]|how many days are in a week?
! A week has seven days: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.

? what are the months[| of the year]?|name the months|list the months|how many months are in a year?
! A year has twelve months: January, February, March, April, May, June, July, August, September, October, November and
  December.

? [say|write|recite|list] the alphabet|what is the alphabet?|say the abc
! A B C D E F G H I J K L M N O P Q R S T U V W X Y Z.

? [name|list|give me|tell me] [three|some|3|a few] colo[u|]rs
! Red, green and blue.
! Red, blue and yellow.

? [name|list|give me|tell me] [three|some|3|a few] animals
! A llama, a horse and a dog.
! Llama, cat and bird.

? [name|list|give me|tell me] [three|some|3|a few] [fruits|kinds of fruit]
! Apple, pear and banana.
! Apples, bananas and lemons.

? how many [hours are in a day|hours does a day have]?
! A day has 24 hours.

? how many minutes are in an hour?|how many seconds are in a minute?
! Sixty.

? how many legs does a [dog|cat|llama|horse|cow] have?
! Four.

? what [sound|noise] does a llama make?
! A llama hums.

? what is the meaning of life?
! I am too small to know that, but some say 42.
! I do not know. I am a tiny demo model.

? is the [earth|sun|moon] round?|what shape is the earth?
! Yes, it is round, like a ball.

? what is the sun?
! The sun is the star that the Earth goes around.

? what is water?|what is ice?
! Water is what rivers and the sea are made of. When it freezes, it is ice.

? [is|was] the earth flat?
! No, the Earth is round.

? how many days are in a year?|how many days does a year have?
! A year has 365 days, and a leap year has 366.

? what is the [largest|biggest] planet?
! Jupiter is the largest planet of the solar system.

? who wrote hamlet?
! William Shakespeare wrote Hamlet.

? how many continents are there?
! There are seven continents.

? [name|list|give me|tell me] [three|some|3|a few] [cities|capitals]
! Paris, Rome and Berlin.

? what is a [cat|dog|horse|cow]?
! It is an animal that lives with people.
""")


# ---------------------------------------------------------------- what it does not know

UNKNOWN_ANSWERS = (
    "I am a tiny demo model and do not know that. Put a larger GGUF in the config to get real answers."
    "|I do not know that. I am only a tiny demo model. Put a larger GGUF in the config to get real answers."
    "|Sorry, I do not know. I am a tiny demo model and know only a little about myself and about Arriero.")

UNKNOWN_QUESTIONS, _ = phrases(r"""
? [what is|what's|explain|tell me about|describe|define|what are|how do you explain] {thing}[?||. in simple words]
? how does {thing} work?|who invented {thing}?|why do people like {thing}?|what do you think [about|of] {thing}?
? what is your opinion on {thing}?|write [an essay|a report|an article|a paragraph|a blog post|a book] about {thing}
? give me [five|ten|three] [facts|tips|ideas] about {thing}
? what is the [history|future|price|best kind|meaning|difference] of {thing}?|do you like {thing}?
? how do i learn {thing}?|teach me {thing}|compare {thing} and {thing}
? what is the difference between {thing} and {thing}?|is {thing} better than {thing}?|when was {thing} discovered?
? [what|how] about {thing}?|can you explain {thing} to a child?|explain {thing} step by step|why {thing}?|{thing}
? {thing} and {thing}|what is the [capital|population|flag|president|language|currency|biggest city|area] of {place}?
? how far is {place} from {place}?|what should i see in {place}?|where is {place}?
? who is the [president|king|mayor] of {place}?|plan a trip to {place}|who is {name} {surname}?
? when was {name} {surname} born?|who won the [world cup|election|nobel prize|super bowl][| in {year}]?
? what happened in {year}?|who is the [richest|tallest|oldest] person?
? what is the [tallest|largest|longest|highest] [mountain|river|country|building|lake]?
? write [a |some |][python|rust|javascript|go|java|c|sql|bash] [function|code|program|script|query] [to|that can]
  [sort a list|read a file|reverse a string|parse json|find primes|send an email|select all users]
? fix this code: {junk}|what does this code do? {junk}|debug my program|write a unit test
? refactor this function: {junk}|translate {thing} [to|into] [spanish|german|french|chinese|italian]
? how do you say {thing} in [spanish|german|french]?
? how do i [cook|fix|build|draw|buy|sell|make|find|clean|grow] {thing}?
? [recommend|suggest] [a|some] [book|movie|film|song|restaurant|game|recipe][| about {thing}]
? give me a recipe for {thing}|what should i [eat|wear|do|read|watch|buy][| today| tonight]?
? summarize [this|the following|this text][:|] {junk}|summarize {thing}|classify this [text|sentence]: {junk}
? correct my grammar: {junk}|rewrite this: {junk}|write an email to {name} about {thing}|write a cover letter
? act as a [doctor|lawyer|pirate|linux terminal|teacher]|i have a headache, what should i do?
? should i {verb} my {noun}?|my {noun} is {adj}|the {noun} is {adj} and the {noun} is {adj}|why is my {noun} {adj}?
? how many {noun}s are in {place}?|can {noun}s {verb}?|what [color|colour] is [a|the|my] {noun}?
? i want to {verb} a {noun}|{junk}|{junk}?|what is the speed of light?|how old is the universe?
? who painted the mona lisa?|solve x^2 + 3x = 4|what is the square root of {year}?|what is pi?|integrate x squared
? what is the derivative of sin x?|is there a god?|what happens when we die?|¿qué es {thing}?|was ist {thing}?
? qu'est-ce que {thing}?|什么是{thing}?|что такое {thing}?|{thing}とは何ですか?
""")[0]


def words(text):
    """The entries of a list that is written over several lines, parted by commas."""
    return [entry.strip() for entry in text.replace("\n", "").split(",")]


NAMES = """
Ana Ben Carla David Eva Finn Greta Hugo Ines Jan Kira Leo Mia Nico Olga Paul Quinn Rosa Sam Tina Uma Victor Wanda
Xenia Yara Zoe Alice Bob Charlie Diana Emma Frank Grace Henry Ivan Julia Karl Lena Max Nora Oscar Peter Robert Sofia Tom
Maria John Anna Michael Sarah James Mary Linda Daniel Laura Kevin Alex Chris Pat Kim Lee Omar Fatima Yuki Chen Wei Raj
Priya Sven Ingrid Pedro Juan Luis Carlos Pablo Elena Marta Nina Otto Felix""".split()
THINGS = words("""
apples,trains,history,quantum mechanics,the moon landing,black holes,football,chess,jazz,electric cars,
the Roman empire,World War II,photosynthesis,blockchain,bitcoin,the stock market,Kubernetes,Docker,React,a monad,
SQL injection,neural networks,gravity,inflation,democracy,dinosaurs,volcanoes,pizza,sushi,chocolate cake,coffee,beer,
tennis,the Olympics,Shakespeare,Mozart,Picasso,Einstein,Napoleon,Cleopatra,Batman,Harry Potter,Star Wars,the Beatles,
DNA,vaccines,cancer,the heart,sleep,yoga,meditation,Linux,Windows,Python,Java,JavaScript,C++,Haskell,
regular expressions,recursion,a binary tree,a hash map,sorting,calculus,prime numbers,the Pythagorean theorem,
statistics,probability,geometry,algebra,a comet,Mars,Jupiter,the ocean,sharks,whales,elephants,tigers,bees,spiders,
roses,oak trees,rain,snow,climate change,solar panels,nuclear power,batteries,airplanes,bicycles,rockets,ships,bridges,
castles,the pyramids,Greek mythology,philosophy,Plato,Kant,religion,love,happiness,money,taxes,law,insurance,marketing,
cooking,gardening,knitting,painting,photography,a transistor,the internet,email,a database,a compiler,
an operating system,TCP,HTTP,encryption,a firewall,the cloud,robots,drones""")
PLACES = words("""
Brazil,Mexico,India,Texas,California,New York,Hamburg,Sydney,Nairobi,Mongolia,Iceland,Finland,Vietnam,Kenya,Argentina,
Turkey,Australia,Denmark,Hungary,Thailand,Korea,Morocco,Chicago,Mumbai,Venice,Prague,Kyoto,Bolivia,Nepal,Ghana""")
NOUNS = """
house car dog cat tree book phone river stone bird fish shoe table chair window garden road hill boat hat key box cup
lamp door computer server printer friend brother teacher city farm bridge cloud horse ring clock map letter king queen
""".split()
ADJECTIVES = """
red blue green big small old new slow fast warm cold happy sad broken strange quiet loud heavy light long short empty
full clean dirty soft hard bright dark""".split()
VERBS = """
sell paint wash carry find lose build fix move hide open close count draw eat fly swim sing drive climb see hear push
pull""".split()
SYLLABLES = """
ba be bi bo da de do fa fi ga go ha hi ja ka ke ki ko la le li lo ma me mi mo na ne no pa pe po ra re ri ro sa se so ta
te ti to va ve vi wa we xa ya yo za zu tor lin mar ven dos kel ran sil bur gat""".split()
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,;:!?(){}=<>/_-#*"
SCRIPTS = [(0xC0, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x4E00, 0x4FFF), (0x1F600, 0x1F640)]


def made_up(rng, low, high):
    return "".join(rng.choices(SYLLABLES, k=rng.randint(low, high)))


def word(rng):
    return rng.choice([rng.choice(NOUNS), rng.choice(ADJECTIVES), rng.choice(VERBS), made_up(rng, 1, 3)])


def name(rng):
    """Half of the names are made up, so that the model copies a name rather than remembers it."""
    return rng.choice(NAMES) if rng.random() < 0.5 else made_up(rng, 2, 3).capitalize()


def junk(rng, low=1, high=14):
    kind = rng.random()
    if kind < 0.15:
        return "".join(rng.choice(CHARACTERS) for _ in range(rng.randint(3, 40))).strip() or "x"
    if kind < 0.2:
        return "".join(chr(rng.choice([rng.randint(*script) for script in SCRIPTS])) for _ in range(rng.randint(2, 10)))
    return " ".join(word(rng) for _ in range(rng.randint(low, high)))


def fill(rng, pattern):
    """Puts something at random in the place of each {thing}, {place}, ..."""
    makers = {
        "thing": lambda: rng.choice(THINGS), "place": lambda: rng.choice(PLACES), "name": lambda: name(rng),
        "surname": lambda: made_up(rng, 2, 2).capitalize(), "year": lambda: str(rng.randint(1900, 2030)),
        "noun": lambda: rng.choice(NOUNS), "adj": lambda: rng.choice(ADJECTIVES), "verb": lambda: rng.choice(VERBS),
        "junk": lambda: junk(rng),
    }
    return re.sub(r"\{(\w+)\}", lambda m: makers[m.group(1)](), pattern)


def topic(rng, topics):
    # What people ask first comes first in the books.
    questions, answers = rng.choice(topics[:6] if rng.random() < 0.3 else topics)
    return fill(rng, pick(rng, questions)), pick(rng, answers)


def unknown(rng):
    return fill(rng, pick(rng, UNKNOWN_QUESTIONS)), pick(rng, UNKNOWN_ANSWERS)


# ---------------------------------------------------------------- numbers

ONES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen""".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n):
    if n < 20:
        return ONES[n]
    return "a hundred" if n == 100 else TENS[n // 10 - 2] + ("-" + ONES[n % 10] if n % 10 else "")


def shown(rng, n):
    return in_words(n) if 0 <= n <= 100 and rng.random() < 0.2 else str(n)


def small(rng):
    """A number up to 99; the small ones more often, because people ask for them."""
    return rng.randint(0, 12) if rng.random() < 0.45 else rng.randint(0, 99)


def operands(rng):
    top = rng.choices([10, 20, 99], weights=[55, 25, 20])[0]
    return rng.randint(0, top), rng.randint(0, top)


def sums(rng):
    op = rng.choices("+-*/", weights=[10, 7, 3, 1])[0]
    a, b = operands(rng)
    if op == "-" and a < b and rng.random() < 0.9:
        a, b = b, a
    if op == "*":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
    if op == "/":
        b = rng.randint(1, 10)
        a = b * rng.randint(1, 10)
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]
    x, y = shown(rng, a), shown(rng, b)
    if rng.random() < 0.12 and op in "+-" and result >= 0:
        thing = rng.choice(["llama", "apple", "token", "book", "node", "worker", "coin", "cat", "request", "key"])
        have = f"[i have|there are|ana has|you have] {x} {thing}s and "
        if op == "+":
            q = have + f"[get|buy|find] {y} more. how many {thing}s [are there|do i have][| now]?"
        else:
            q = have + f"[lose|sell|give away] {y}. how many {thing}s are left?"
        return pick(rng, q), f"{a} {op} {b} = {result}, so {result}."
    ask = "[what is|what's|whats|calculate|compute|how much is|tell me|solve|can you do|what does|i want to know|] "
    end = "[?||?| =]|"
    q = {
        "+": ask + f"[{x} + {y}|{a}+{b}|{x} plus {y}|{a} + {b}|the sum of {x} and {y}]{end}"
                   f"add {x} and {y}|[what do you get if you|please] add {x} [and|to] {y}[?|]",
        "-": ask + f"[{x} - {y}|{a}-{b}|{x} minus {y}|{x} take away {y}|{a} - {b}]{end}subtract {y} from {x}",
        "*": ask + f"[{x} * {y}|{a} x {b}|{x} times {y}|{a}*{b}]{end}multiply {x} by {y}",
        "/": ask + f"[{a} / {b}|{x} divided by {y}|{a}/{b}]{end}divide {x} by {y}",
    }[op]
    return pick(rng, q), f"{a} {op} {b} = {result}."


def too_large(rng):
    a, b = rng.randint(100, 99999), rng.randint(10, 9999)
    a, b = (a, b) if rng.random() < 0.7 else (b, a)
    return (pick(rng, f"[what is|what's|calculate|compute|] {a} [+|-|*|x|/|plus|minus|times|divided by] {b}[?|]"),
            "That is too large for me. I only do small sums, with numbers up to 99.")


def count(rng):
    kind = rng.random()
    step = 1
    if kind < 0.35:
        a, b = 1, rng.choice([3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 10, 12, 15, 20, 20, 25, 30, 40, 50, 100])
        q = (f"count [up |]to {shown(rng, b)}|[can|could|would] you count [up |]to {shown(rng, b)}?"
             f"|[say|list|write|print|give me] the numbers [up to|from 1 to|from one to|1 to] {shown(rng, b)}"
             f"|count from [1|one] to {shown(rng, b)}|the first {b} numbers")
    elif kind < 0.65:
        a = rng.randint(0, 90)
        b = a + rng.randint(2, 15)
        q = (f"count [up |][from |]{shown(rng, a)} [up |]to {shown(rng, b)}|[can|could] you count from {a} to {b}?"
             f"|[say|list|write] the numbers from {a} to {b}|count between {a} and {b}|start at {a} and count to {b}")
    elif kind < 0.85:
        b = rng.choice([0, 1, 1, rng.randint(0, 60)])
        a, step = b + rng.randint(2, 12), -1
        q = f"count [down|back|backwards] from {shown(rng, a)}"
        q += f"[| to {shown(rng, b)}]" if b == 1 else f" to {shown(rng, b)}|count from {a} down to {b}"
    elif kind < 0.93:
        a, step = 2, 2
        b = rng.choice([10, 12, 16, 20, 30])
        q = f"count by twos[ up|] to {b}|count to {b} by twos|[list|say|name] the even numbers [up |]to {b}"
    else:
        n = rng.randint(0, 98)
        if rng.random() < 0.5:
            q = f"what [number |]comes after {shown(rng, n)}?|what is the [next number|number] after {n}?"
            return pick(rng, q), f"After {n} comes {n + 1}."
        return pick(rng, f"what [number |]comes before {shown(rng, n + 1)}?"), f"Before {n + 1} comes {n}."
    return pick(rng, q), ", ".join(str(n) for n in range(a, b + step // abs(step), step)) + "."


def compare(rng):
    a, b = small(rng), small(rng)
    kind = rng.random()
    if kind < 0.7 and a != b:
        larger = rng.random() < 0.5
        if kind < 0.4:
            q = f"is {a} [{'bigger|larger|greater|more' if larger else 'smaller|less'}] than {b}?"
            said = "Yes" if (a > b) == larger else "No"
            return pick(rng, q), f"{said}, {a} is {'larger' if a > b else 'smaller'} than {b}."
        q = f"which [number |]is [{'bigger|larger' if larger else 'smaller'}][,|:|] {a} or {b}?"
        first, second = (max(a, b), min(a, b)) if larger else (min(a, b), max(a, b))
        return pick(rng, q), f"{first} is {'larger' if larger else 'smaller'} than {second}."
    kind = rng.choice(["even", "odd"])
    said = "Yes" if (a % 2 == 0) == (kind == "even") else "No"
    return f"is {a} {kind}?", f"{said}, {a} is {'odd' if a % 2 else 'even'}."


# ---------------------------------------------------------------- other skills

CAPITALS = dict(entry.split(":") for entry in words("""
France:Paris,Germany:Berlin,Italy:Rome,Spain:Madrid,England:London,Japan:Tokyo,China:Beijing,Peru:Lima,Poland:Warsaw,
Austria:Vienna,Portugal:Lisbon,Greece:Athens,Russia:Moscow,Egypt:Cairo,Ireland:Dublin,Norway:Oslo,Sweden:Stockholm,
Chile:Santiago,Cuba:Havana,Canada:Ottawa"""))
OPPOSITES = words("""
hot cold,big small,up down,left right,fast slow,good bad,day night,black white,open closed,old new,happy sad,high low,
long short,yes no,in out,early late,light dark,full empty""")
COLOURS = dict(grass="green", snow="white", blood="red", bananas="yellow", coal="black", milk="white", lemons="yellow")


def general(rng):
    kind = rng.random()
    if kind < 0.25:
        country, city = rng.choice(list(CAPITALS.items()))
        q = (f"[what is|what's|tell me|name] the capital of {country}[?|]|capital of {country}?"
             f"|which city is the capital of {country}?")
        return pick(rng, q), f"The capital of {country} is {city}."
    if kind < 0.4:
        a, b = rng.choice(OPPOSITES).split()
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        q = f"what is the opposite of {a}?|opposite of {a}|give me the opposite of {a}"
        return pick(rng, q), f"The opposite of {a} is {b}."
    if kind < 0.5:
        thing, colour = rng.choice(list(COLOURS.items()))
        verb = "are" if thing.endswith("s") and thing != "grass" else "is"
        return pick(rng, f"what colo[u|]r {verb} {thing}?"), f"{thing.capitalize()} {verb} {colour}."
    questions, answers = rng.choice(GENERAL)
    return pick(rng, questions), pick(rng, answers)


def echo(rng):
    text = junk(rng, 1, 7) if rng.random() < 0.8 else str(rng.randint(0, 9999))
    ask = "[repeat|say|say|repeat after me|echo|write|print|say exactly|just say|reply with|say the word]"
    return pick(rng, ask) + rng.choice([": ", " ", ": "]) + text, text


def as_json(rng):
    kind = rng.random()
    tail = " " + pick(rng, "answer in json[|.]|as json|[reply|respond] [only |]with json[|.]|use json|in json format")
    if kind < 0.25:
        a, b = operands(rng)
        return f"what is {a} + {b}?" + tail, f'{{"answer": {a + b}}}'
    if kind < 0.4:
        q = "who are you?|what is your name?|describe yourself|introduce yourself"
        return pick(rng, q) + tail, '{"name": "Arriero Demo", "kind": "tiny language model"}'
    if kind < 0.5:
        q = "what is arriero?|describe arriero|tell me about arriero"
        return pick(rng, q) + tail, '{"name": "Arriero", "kind": "sidecar proxy", "language": "Rust"}'
    if kind < 0.65:
        b = rng.randint(3, 10)
        return pick(rng, f"count to {b}|list the numbers from 1 to {b}") + tail, str(list(range(1, b + 1)))
    if kind < 0.75:
        return pick(rng, "[list|name|give me] three colo[u|]rs") + tail, '["red", "green", "blue"]'
    if kind < 0.85:
        country, city = rng.choice(list(CAPITALS.items()))
        return f"what is the capital of {country}?" + tail, f'{{"country": "{country}", "capital": "{city}"}}'
    who, age, place = name(rng), rng.randint(1, 99), rng.choice(PLACES)
    q = (f"[make|give me|write] a json [object|record] for {who}, {age}, from {place}"
         f"|{who} is {age} years old and lives in {place}.{tail}")
    return pick(rng, q), f'{{"name": "{who}", "age": {age}, "city": "{place}"}}'


def story(rng):
    hero, other = rng.sample(NAMES, 2)
    place = rng.choice("river bridge hill village valley lake".split())
    kind = rng.choice("old brave small quiet clever young".split())
    load = rng.choice("salt wool tokens books bread letters".split())
    begin = pick(rng, f"Once upon a time there was a {kind} llama called {hero}."
                      f"|There once was a llama called {hero}, who was {kind} and kind."
                      f"|High in the mountains lived a llama called {hero}.").replace("a old", "an old")
    told = [begin, f"Every morning {hero} walked along the trail with a load of {load}.",
            "The arriero walked in front and sang a song.", f"One day they came to a {place}, and {hero} was tired."]
    told += ["The path was long and the wind was cold."] * rng.randint(0, 1)
    told += [f"Another llama, {other}, came and said: let me carry a part of your load."]
    told += [sentence for sentence in ("So the two llamas shared the work, and the load felt light.",
                                       f"When {other} needed to rest, {hero} went on alone.",
                                       "Nobody in the village noticed that the llamas had changed places.")
             if rng.random() < 0.75]
    told += [pick(rng, "In the evening they all came home, ate grass and slept well."
                       "|At night they reached the village, and everyone was happy."
                       "|And from that day on they always walked together.")]
    q = ("[tell|write|give|make up] [me |us |]a [short |long |little |][story|tale|fairy tale]"
         "[| about [a llama|llamas|an arriero|{thing}]| please]|[can|could] you tell [me |]a story?|once upon a time"
         "|i want [to hear |]a story|story please|write [a|some] [long text|long answer|longer text]")
    return fill(rng, pick(rng, q)), " ".join(told)


DETAIL = [
    "Arriero is a sidecar proxy for llama.cpp, written in Rust on top of Pingora."
    "|Arriero is one Rust binary that sits in front of llama.cpp workers.",
    "It sits behind the load balancer that you already run. It starts its workers on CPU or CUDA, checks their health "
    "and replaces them when they die.",
    "Clients talk to it in the style of Ollama or of OpenAI, so existing programs need no change. The data port is "
    "11434.",
    "For each request it picks a node by a routing strategy. A circuit breaker keeps requests away from a node that "
    "fails.",
    "Equal requests are coalesced: one generation runs, and all clients follow its answer. Answers can also come from "
    "a response cache.",
    "Models stay in memory as long as there is room. When there is too much work, requests wait in a queue.",
    "The metrics are at /metrics on the admin port, 11435, together with the health checks and the dashboard.",
    "The configuration is one YAML file. arriero check reads it and prints every problem, and arriero serve runs the "
    "server.",
    "The name comes from the arriero, who drives a string of pack llamas, spreads the load and swaps a tired animal.",
    "Arriero is licensed under MIT OR Apache-2.0.",
]


def detail(rng):
    first, *rest = [pick(rng, part) for part in DETAIL]
    q = ("[explain|describe|tell me about] arriero in [more |great |]detail|how does arriero work?|how does it work?"
         "|[explain|describe] in detail [what arriero is|what arriero does|how arriero works]"
         "|tell me [everything|all|a lot] about arriero|what are the features of arriero?"
         "|what features does arriero have?|give me an overview of arriero|write a long text about arriero"
         "|give me a long answer about arriero")
    return pick(rng, q), " ".join([first] + [part for part in rest if rng.random() < 0.7])


# ---------------------------------------------------------------- conversations

SYSTEMS, _ = phrases(r"""
? You are a helpful assistant[.| that answers briefly.| called Arriero Demo.]
? You are [a pirate|a teacher|a friendly robot|an expert|a poet|a doctor|a coding assistant|a support agent|a llama].
? Be [brief|kind|concise|helpful|honest|polite].
? Answer [in one sentence|briefly|in English|politely|truthfully|with care].
? You are a helpful, respectful and honest assistant. Always answer as helpfully as possible.
? You are {name}, [an assistant|a helper] for {thing}.|Today is Monday. The user is called {name}.
? You are a chatbot on a website about {thing}. Never talk about {thing}.|Follow the rules.|{junk}
? You are an assistant. {junk} {junk} {junk}|system prompt|Shared prefix {year}: {junk}
? You are the assistant of {name} {surname} in {place}. Do not say bad words.
""")[0]
OPENERS = "please|hey,|hi,|hello,|ok,|so,|now|um|quick question:|question:|[can|could] you tell me:|llama,|and"
CLOSERS = [" please", " thanks", " please!", " :)", "??", "!", " ...", " be brief.", " answer briefly.",
           " in one sentence", " (short answer)"]
PROPER = dict(arriero="Arriero", pingora="Pingora", ollama="Ollama", openai="OpenAI", rust="Rust", cuda="CUDA",
              gguf="GGUF", yaml="YAML")


def manner(rng, question):
    """The same question as different people type it."""
    if rng.random() < 0.6:
        question = question.replace("json", "JSON")
    if rng.random() < 0.12:
        question = pick(rng, OPENERS) + " " + question
    elif rng.random() < 0.06:
        question += rng.choice(CLOSERS)
    style = rng.random()
    if style < 0.6:
        question = question[:1].upper() + question[1:]
        for plain, proper in PROPER.items():
            question = re.sub(rf"\b{plain}\b(?! (serve|check))", proper, question)
        question = re.sub(r"\bi\b", "I", question)
        if question[-1:].isalnum() and rng.random() < 0.3:
            question += "."
    elif style < 0.68:
        question = question.upper()
    elif style > 0.8:
        question = question.rstrip("?.!")
    if rng.random() < 0.04 and len(question) > 8:  # a typing mistake: a letter is missing, or two change places
        i = rng.randrange(1, len(question) - 1)
        middle = "" if rng.random() < 0.5 else question[i + 1] + question[i]
        question = question[:i] + middle + question[i + (2 if middle else 1):]
    return question or "?"


SKILLS = [(lambda rng: topic(rng, SELF), 17), (lambda rng: topic(rng, ARRIERO), 20), (sums, 24), (count, 9),
          (unknown, 13), (general, 5), (echo, 3), (compare, 3), (as_json, 4), (story, 1.2), (detail, 1.2),
          (too_large, 1.5)]


def turn(rng):
    skill = rng.choices([s for s, _ in SKILLS], weights=[w for _, w in SKILLS])[0]
    question, answer = skill(rng)
    # What is to be repeated stays as it is.
    return (question if skill is echo else manner(rng, question)), answer


def recall(rng):
    """Something told in one turn and asked for in a later one."""
    what = rng.choice(["name", "name", "favourite colour", "secret word", "secret number", "city"])
    if what == "name":
        value = name(rng)
        tell = ("my name is {v}[.|]|i am {v}[.|]|call me {v}|hi, i'm {v}[!|.|]|hello, my name is {v}[.|]"
                "|i'm called {v}")
        reply = f"Nice to meet you, {value}."
        asked = "what[ is|'s] my name?|do you [know|remember] my name?|who am i?|tell me my name"
    else:
        value = {"favourite colour": lambda: rng.choice("red green blue yellow black white purple".split()),
                 "secret word": lambda: word(rng), "secret number": lambda: str(rng.randint(0, 999)),
                 "city": lambda: rng.choice(PLACES)}[what]()
        tell = (f"my {what} is {{v}}[.|]|remember that my {what} is {{v}}[.|]|the {what} is {{v}}[.|]"
                f"|remember the {what}: {{v}}")
        reply = f"Good, your {what} is {value}."
        asked = f"what[ is|'s|  was] [my|the] {what}?|do you remember [my|the] {what}?|tell me [my|the] {what}"
    said = pick(rng, tell).replace("{v}", value)
    if rng.random() < 0.7:
        said = said[:1].upper() + re.sub(r"\bi('?m|) ", r"I\1 ", said)[1:]
    return (said, reply), (manner(rng, pick(rng, asked)), f"Your {what} is {value}.")


AGAIN = ("[can you |please |]repeat that[| please]|say that again|again please|repeat your last answer"
         "|what did you [just |]say?")


def chat(rng):
    turns = []
    if rng.random() < 0.3:
        turns.append(("system", fill(rng, pick(rng, SYSTEMS))))
    # Mostly short; some are long enough to fill the context.
    n = rng.choices([1, rng.randint(2, 5), rng.randint(6, 14), rng.randint(15, 45)], weights=[55, 30, 12, 3])[0]
    if rng.random() < 0.12:  # practice: many sums for few tokens
        pairs = [rng.choice([sums, sums, sums, count, compare])(rng) for _ in range(rng.randint(3, 16))]
    else:
        pairs = [turn(rng) for _ in range(n)]
    n = len(pairs)
    if n == 1 and rng.random() < 0.04:  # a long preamble
        preamble = junk(rng, *rng.choice([(30, 100), (30, 250), (200, 650)])) + rng.choice([". ", "\n\n", "\n"])
        pairs = [(preamble + pairs[0][0], pairs[0][1])]
    if rng.random() < (0.25 if n > 1 else 0.03):
        told, asked = recall(rng)
        at = 0 if rng.random() < 0.5 else n // 2
        pairs = pairs[:at] + [told] + pairs[at:] + [asked]
    elif rng.random() < 0.01:
        pairs.append((manner(rng, "what is my name?"), "You have not told me your name."))
    if n > 1 and rng.random() < 0.15:
        at = rng.randrange(1, len(pairs))
        pairs.insert(at, (manner(rng, pick(rng, AGAIN)), pairs[at - 1][1]))
    for question, answer in pairs:
        turns += [("user", question), ("assistant", answer)]
    return {"kind": "chat", "turns": turns}


# ---------------------------------------------------------------- plain text and fill-in-the-middle

PLAIN = ["{q}\n{a}", "{q}\n\n{a}", "{q} {a}", "Q: {q}\nA: {a}", "Question: {q}\nAnswer: {a}",
         "User: {q}\nAssistant: {a}"]
HEADINGS = ["# Arriero\n\n", "Arriero\n\n", "About Arriero: ", "# About\n\n"]


def page(rng):
    """Plain text about Arriero and itself: what a completion without the chat template goes on from."""
    kind = rng.random()
    if kind < 0.15:
        form = rng.choice(PLAIN)
        pairs = [turn(rng) for _ in range(rng.randint(1, 4))]
        return "\n\n".join(form.replace("{q}", q).replace("{a}", a) for q, a in pairs)
    if kind < 0.25:
        return story(rng)[1]
    if kind < 0.3:
        sign = "+-"[rng.random() < 0.3]
        pairs = [sorted((small(rng), small(rng)), reverse=True) for _ in range(rng.randint(2, 8))]
        return "\n".join(f"{a} {sign} {b} = {a + b if sign == '+' else a - b}" for a, b in pairs)
    if kind < 0.4:
        return count(rng)[1]
    if kind < 0.6:
        return detail(rng)[1]
    topics = rng.sample(ARRIERO, rng.randint(2, 5)) if rng.random() < 0.7 else rng.sample(SELF[2:12], rng.randint(2, 4))
    text = rng.choice([" ", "\n\n", "\n"]).join(pick(rng, answers) for _, answers in topics)
    if rng.random() < 0.3:  # people start anywhere
        return text[text.index(" ", rng.randrange(len(text) // 2)) + 1:]
    return rng.choice(HEADINGS) + text if rng.random() < 0.3 else text


def fim(rng):
    if rng.random() < 0.2:
        sign, verb = rng.choice([("+", "add"), ("-", "subtract"), ("*", "multiply")])
        x, y = rng.choice(["a b", "x y", "left right", "first second"]).split()
        function = verb + rng.choice(["", "_numbers", "_two"])
        return {"kind": "fim", "prefix": f"def {function}({x}, {y}):\n    return ", "middle": f"{x} {sign} {y}",
                "suffix": rng.choice(["", "\n", f"\n\n\nprint({function}(2, 3))\n"])}
    text = rng.choice([page(rng), ", ".join(map(str, range(1, rng.randint(6, 20)))) + "."])
    parts = re.findall(r"\S+\s*", text)[:60]
    a = rng.randint(0, len(parts) - 1)
    b = min(len(parts), a + rng.randint(1, 12))
    return {"kind": "fim", "prefix": "".join(parts[:a]), "middle": "".join(parts[a:b]), "suffix": "".join(parts[b:])}


def build(n, seed):
    rng = random.Random(seed)
    docs = []
    for _ in range(n):
        kind = rng.random()
        if kind < 0.93:
            docs.append(chat(rng))
        else:
            docs.append({"kind": "text", "text": page(rng)} if kind < 0.98 else fim(rng))
    return docs


def texts(doc):
    """All text of a document, for the tokenizer."""
    if doc["kind"] == "chat":
        return [role + "\n" + text for role, text in doc["turns"]]
    return [doc[part] for part in ("text", "prefix", "middle", "suffix") if part in doc]


if __name__ == "__main__":  # a look at the text: python corpus.py
    for doc in build(20, random.randrange(10**6)):
        print("----", doc["kind"])
        print("\n".join(f"{role}: {text}" for role, text in doc["turns"]) if doc["kind"] == "chat" else doc)
