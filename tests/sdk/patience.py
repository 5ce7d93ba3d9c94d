"""
Two videos where one may be under way: the second is asked for at once, by a client that nobody has told to wait.

Prints what became of both, how often the second was refused, and what a client raises that does not retry.
"""

import json
import sys
from typing import Any

import openai

json.load(sys.stdin)
answers: list[Any] = []
client = openai.OpenAI(http_client=openai.DefaultHttpxClient(event_hooks={"response": [answers.append]}))


def create(asked: openai.OpenAI) -> Any:
    return asked.videos.create(prompt="a boat", model="seedance-2.0", extra_body={"resolution": "480p"})


first = create(client)
raised = ""
try:
    create(openai.OpenAI(max_retries=0))
except openai.APIStatusError as error:
    raised = type(error).__name__
del answers[:]
second = create(client)
refused = sum(answer.status_code == 429 for answer in answers)
statuses = [client.videos.poll(video.id, poll_interval_ms=50).status for video in (first, second)]
print(json.dumps({"statuses": statuses, "refused": refused, "class": raised}))
