"""`make reference`: write every generated part, and say which files changed."""

from __future__ import annotations

from nexus_docs.pages import pages


def main() -> None:
    for file, text in pages().items():
        old = file.read_text("utf-8") if file.exists() else ""
        if old != text:
            file.write_text(text, "utf-8")
            print(f"wrote {file}")


if __name__ == "__main__":
    main()
