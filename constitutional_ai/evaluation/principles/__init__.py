"""What models make of principles: drafts from a document, and how each principle judges before it is used."""
