"""Two honest servers that write down each request exactly as they read it: a line of JSON {method, target, headers, body} in a file."""
