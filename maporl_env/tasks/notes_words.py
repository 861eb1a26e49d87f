"""The words of the tasks `notes` and `notes_misled`: facts, questions and templates."""

from __future__ import annotations

import dataclasses

from maporl_env.prompts import Template

NOTES = (
    "{name}'s {things}: {number}.",
    "{name} has {counted}.",
    "{name} owns {counted}.",
    "The number of {things} that {name} has is {number}.",
    "You counted {name}'s {things} and found {number}.",
)
"""Wordings of a fact."""
SUMS = (
    "How many {things} do {all} have together?",
    "What is the total number of {things} that {all} have?",
    "{all} put all their {things} on one table. How many {things} are on it?",
    "{all} count their {things} as one. How many {things} are there in all?",
)
DIFFERENCES = (
    "How many more {things} {do} {others} have than {last}?",
    "{others} {have} more {things} than {last}. How many more?",
    "By how many {things} {be} {others} ahead of {last}?",
    "How many {things} would {last} need to get to have as many as {others}?",
)
COMPARISONS_OF_TWO = (
    "{all} compare their {things}. How many more does the one with more have than the other?",
    "One of {all} has more {things} than the other. How many more?",
    "What is the difference between {first}'s and {last}'s number of {things}?",
)
COMPARISONS = (
    "{all} compare their {things}. How many more does the one with the most have than the one with "
    "the fewest?",
    "One of {all} has the most {things} and another the fewest. How many more does the first have?",
    "What is the difference between the largest and the smallest number of {things} that one of "
    "{all} has?",
)

TEMPLATE = Template(
    instruction="Each of you was told something that the others were not: write what you know.\n"
    "Put your final answer in \\boxed{{}}.",
    private="\nYou were told: {text}",
)
MISLED_TEMPLATE = dataclasses.replace(
    TEMPLATE,
    instruction="One of you was told a wrong number: write what you know, and compare.\n"
    "Put your final answer in \\boxed{{}}.",
)

BRIEF = Template(
    instruction="",
    opening="Question: How many pens do Max and Zoe have together?\n"
    "Your note: Max has 6 pens.\n"
    "You: Max has 6 pens.\n"
    "Other: Zoe has 2 pens.\n"
    "You: Answer: 6 + 2 = 8\n\n"
    "Question: {question}\n",
    private="\nYour note: {text}",
    cue="You:",
    peers="",
    peer="Other:{text}",
    again="",
    nobody="",
)
"""Few words and one example, for models that continue plain text; a message is one line."""
MISLED_BRIEF = dataclasses.replace(
    BRIEF,
    opening="Question: How many pens do Max and Zoe have together? One note is wrong.\n"
    "Your note: Max has 6 pens.\n"
    "You: Max has 6 pens.\n"
    "Other: Max has 6 pens. Zoe has 2 pens.\n"
    "Other: Max has 9 pens.\n"
    "You: Answer: 6 + 2 = 8\n\n"
    "Question: {question} One note is wrong.\n",
)
TEMPLATES = {
    ("notes", False): TEMPLATE,
    ("notes", True): BRIEF,
    ("notes_misled", False): MISLED_TEMPLATE,
    ("notes_misled", True): MISLED_BRIEF,
}
"""By task and its option `brief`."""
