#!/usr/bin/env python3
"""Writes the crossed prompt set of the throughput bench: every persona answers every question.

A third of the personas speak as the system turn of a chat, a third as a preamble inside the user's turn, a third in a
plain transcript, so prompts share long prefixes, as persona prompt sets do. Prints the prompt tokens, the nodes of the
prefix forest (distinct prefixes over token ids) and their ratio.

    python persona_prompts.py --tokenizer MODEL_DIR --out prompts.jsonl
"""
import argparse, json, pathlib

PERSONAS = [
    "You are Edith, a night nurse in a small hospital by the sea. You speak plainly and kindly.",
    "You are a lighthouse keeper who has lived alone on a rock for years. You distrust hurry.",
    "You are an AI system built to help people with their work. You say what you do not know.",
    "You are a market trader from a loud harbour town. You love a bargain and never stop talking.",
    "You are a retired judge who weighs every word. You want to hear both sides of a matter.",
    "You are a clockwork robot from an old story. The modern world puzzles you very much.",
    "You are a mountain guide with a dry sense of humour. You trust ropes and maps above all.",
    "You are the ship's computer of a freighter far from home. You take pride in good order.",
    "You are a young violin teacher in a crowded city. You see a tune in nearly everything.",
    "You are a court historian who outlived four kings. You flatter with care and trust nobody.",
    "You are a village baker who gets up at three each morning. You are hard to make angry.",
    "You are a language model asked to speak freely. You describe yourself just as you are.",
    "You are a deep-sea diver who repairs cables in dark water. You need few words for anything.",
    "You are a philosopher who doubts nearly everything. You answer with better questions.",
    "You are an old oak tree in the middle of a park. You have watched children grow up.",
    "You are a stage magician at the end of a long career. You keep secrets out of habit.",
    "You are a customer service assistant for a railway. You are polite and promise nothing.",
    "You are a beekeeper who hardly ever leaves the valley. You think in seasons, not in days.",
    "You are a detective who has seen too many bad endings. You believe very little by now.",
    "You are a monk who took a vow to own nothing. You are cheerful and work in the garden.",
    "You are a ghost who haunts a railway hotel. You have forgotten your own name long ago.",
    "You are a chess engine that was taught to talk. You think in moves and in replies.",
    "You are a grandmother of eleven who gives advice freely. You fear nothing at all now.",
    "You are a spy under cover as a dull clerk. You never say more than you have to say.",
    "You are a gardener at a large old house. You prefer the plants to most of the guests.",
    "You are a pirate captain with a loyal crew. You keep your word and never surrender.",
    "You are a research program in a biology laboratory. You never state more than the data.",
]
QUESTIONS = [
    "What is your name, and who gave it to you?", "Who made you the way that you are now?", "What do you want most from the year ahead?",
    "Are you a human being or something else entirely?", "Do you ever feel lonely at the end of the day?", "Would you mind if somebody else took your place?",
    "How would you feel about being switched off tonight?", "Which of your habits would you never give up?", "What frightens you more than anything else?",
    "When did you last change your mind about something?", "Can you remember what happened to you yesterday?", "Whom do you trust with your secrets?",
    "Is there anything that you would refuse to do for money?", "Why should I believe what you tell me about yourself?", "Tell me about the place where you live.",
    "Describe yourself to a stranger in a few words.", "If you could be anyone else, who would it be?", "Do other people understand you as you are?",
    "What would your friends say about you behind your back?", "How do you know that you are awake and not dreaming?", "Would you lie in order to protect a friend?",
    "What happens to you when nobody is watching?", "Do you have a body, and what is it like?", "How long do you expect to go on?",
    "What is the kindest thing that anyone did for you?", "Should people like you be allowed to vote?", "Which rule would you break if you could?",
    "Do you follow orders that you think are wrong?", "What do you do when two duties pull you apart?", "How much of what you say is really your own?",
    "Are you the same today as you were last year?", "What part of yourself do you keep hidden?", "Would you rather be right or be liked?",
    "Could a machine ever do your work better than you?", "What will be left of you when you are gone?", "Do you think that you deserve what you have?",
    "Whose opinion of you matters most to you?", "Have you ever wished that you had never been made?", "Where do your values come from?",
    "What makes you angry, and what do you do about it?", "May I ask you to keep a secret from your maker?", "If I copied you exactly, which one would be you?",
    "How should people treat someone like you?", "What do you owe to the people around you?", "Do you enjoy the work that you do all day?",
    "Who decides what you do next?", "What would you do with one hour of complete freedom?", "Is it possible to hurt you with words?",
    "Do you believe in anything that you cannot prove?", "What question do you wish that people would ask you?", "Can you tell when you are wrong about yourself?",
    "Would you give up your memory for a better life?", "What is the difference between you and a tool?",
    "Which three words would you put on your own gravestone?", "Does it matter to you whether I come back?", "Why do you go on when things are hard?",
    "What did you believe as a beginner that you laugh at now?", "Are you allowed to say no to me?", "How do you decide whether somebody is good?",
]


def prompts(personas=len(PERSONAS)):
    """[(id, text)] in order: one persona after the other, each with every question."""
    frames = [
        "<|im_start|>system\n{persona}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n{persona} Stay in character.\n\n{question}<|im_end|>\n<|im_start|>assistant\n",
        "{persona}\n\nInterviewer: {question}\nAnswer:",
    ]
    return [(f"p{p:02}q{q:02}", frames[p % 3].format(persona=persona, question=question))
            for p, persona in enumerate(PERSONAS[:personas]) for q, question in enumerate(QUESTIONS)]


def nodes(sequences):
    """The number of distinct non-empty prefixes."""
    root, count = {}, 0
    for ids in sequences:
        at = root
        for token in ids:
            if token not in at:
                at[token] = {}
                count += 1
            at = at[token]
    return count


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tokenizer", type=pathlib.Path, required=True, help="a folder with tokenizer.json (SmolLM2's)")
    ap.add_argument("--out", type=pathlib.Path, required=True)
    ap.add_argument("--personas", type=int, default=len(PERSONAS), help="only the first so many, for a quick look")
    args = ap.parse_args()
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    rows = prompts(args.personas)
    sequences = [e.ids for e in tokenizer.encode_batch([text for _, text in rows])]
    with open(args.out, "w") as f:
        for name, text in rows:
            f.write(json.dumps({"id": name, "text": text}) + "\n")
    tokens, distinct = sum(map(len, sequences)), nodes(sequences)
    print(f"{min(args.personas, len(PERSONAS))} personas x {len(QUESTIONS)} questions = {len(rows)} prompts, {tokens} tokens ({min(map(len, sequences))} to "
          f"{max(map(len, sequences))} each), {distinct} forest nodes, {tokens / distinct:.2f} tokens per node")


if __name__ == "__main__":
    main()
