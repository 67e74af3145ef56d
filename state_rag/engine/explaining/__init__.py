"""Where a prediction comes from: asked of a run (`explain`), as tables (`parts`), in words (`words`), and as files."""
