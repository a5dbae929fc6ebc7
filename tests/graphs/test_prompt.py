from langchain_core.messages import AIMessage, HumanMessage

from graphs.prompt import newest_question, prompt, sections


def test_the_sections_of_a_prompt_can_be_read_back_and_empty_ones_are_left_out() -> None:
    _, human = prompt("Write.", topic="tea", draft="one\n\n<b>\ntwo", critique="")

    assert sections(human.text) == {"topic": "tea", "draft": "one\n\n<b>\ntwo"}


def test_an_empty_topic_is_still_a_section() -> None:
    _, human = prompt("Write.", topic="", angle="bold")

    assert sections(human.text) == {"topic": "", "angle": "bold"}


def test_a_plain_text_has_no_sections() -> None:
    assert sections("What is <b> in HTML?\n<b>\nnever closed") == {}


def test_the_newest_question_is_the_last_human_message_whatever_answered_it() -> None:
    assert newest_question([HumanMessage("one"), HumanMessage(" two "), AIMessage("three")]) == "two"
    assert newest_question([AIMessage("three")]) == ""
