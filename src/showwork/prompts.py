"""Prompts: Gemma's chat template around a system text and a question."""

TURN_OPEN = "<start_of_turn>"
TURN_CLOSE = "<end_of_turn>"

# One format for all three generations. None has a system role: Gemma 3's template puts a system text before the first
# user text, and we do the same for the others.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' }}"
    "{% if loop.first %}{{ system }}{% endif %}{{ message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def render_prompt(question: str, *, system: str) -> str:
    """Everything before the completion, without BOS."""
    text = f"{system}\n\n{question}" if system else question
    return f"{TURN_OPEN}user\n{text}{TURN_CLOSE}\n{TURN_OPEN}model\n"
