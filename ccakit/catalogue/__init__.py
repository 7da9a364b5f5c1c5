"""A catalogue of one's own: pictures embedded once under every condition, searched under any, on LanceDB.

Fill it, as `ccakit index` does:

    from ccakit.catalogue.items import items_of_folder, items_of_table
    from ccakit.catalogue.index import fill

    items = items_of_table(Path("shop.csv"), Path("photos"))  # or items_of_folder(Path("photos"))
    report = fill("catalogue", ccakit.load("runs/demo"), "runs/demo", items)

Search it, as `ccakit search` does:

    catalogue = ccakit.open_catalogue("catalogue")
    frame = catalogue.search("shirt.jpg", {"sleeve length": 2, "neck design": 1}, where="price < 50", k=10)
    frame = catalogue.search(id="tops/7.jpg", conditions="neck design", not_like=[("a.jpg", "tone", 1)])
    spaces = catalogue.embed(picture)      # (K, E): embed a picture once,
    frame = catalogue.search(spaces, ...)  # and search by it again and again without the model

A frame has a row a result: id, path, cosine (the score), for each condition cosine_CONDITION and
label_CONDITION, then the user's columns. A label comes from the column that is named as the condition, with
" (tagged)" behind where `ccakit tag` filled the cell: the column CONDITION_confidence says so.

What else an opened catalogue has: `conditions` (names), `columns` (the user's), `len(catalogue)`,
`item(id)` (a dict), `spaces(id)` (K, E), `picture(id)`, `file(path)`, `model` (a `PretrainedModel`,
loaded when first used, which draws heatmaps), `check_where(sql)`, `table` (LanceDB's own).

All errors of a user's input are ValueError, of which DataError is one, in one line.
"""
