package query

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind is the kind of a token of a filter.
type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenText
	tokenString   // quoted
	tokenOperator // a comparator
	tokenMark     // ( ) , . -
)

// lexeme is a token of a filter. The text of a string is unquoted, with literalStar for an escaped asterisk.
type lexeme struct {
	kind tokenKind
	text string
	at   int // byte offset
}

// literalStar represents an asterisk that is not a wildcard. It is a noncharacter, which filters cannot contain.
const literalStar = '\uFDD0'

// syntaxError is an error in a filter, at a byte offset.
type syntaxError struct {
	at      int
	message string
}

func (e *syntaxError) Error() string { return e.message }

// mistake returns a syntaxError.
func mistake(at int, format string, args ...any) error {
	return &syntaxError{at, fmt.Sprintf(format, args...)}
}

// lexer splits a filter into tokens.
type lexer struct {
	source string
	at     int
}

// space skips whitespace.
func (l *lexer) space() {
	for l.at < len(l.source) {
		r, size := utf8.DecodeRuneInString(l.source[l.at:])
		if !unicode.IsSpace(r) {
			return
		}
		l.at += size
	}
}

// next returns the next token. A text ends at whitespace, a mark or a comparator. If value is set, it may contain
// dots, colons and hyphens, so that numbers and timestamps need no quotes.
func (l *lexer) next(value bool) (lexeme, error) {
	l.space()
	start := l.at
	if start == len(l.source) {
		return lexeme{kind: tokenEnd, at: start}, nil
	}
	switch c := l.source[start]; {
	case c == '"' || c == '\'':
		text, err := l.quoted()
		return lexeme{tokenString, text, start}, err
	case strings.IndexByte("(),", c) >= 0, !value && (c == '.' || c == '-'):
		l.at++
		return lexeme{tokenMark, l.source[start:l.at], start}, nil
	case strings.IndexByte("<>=!:", c) >= 0:
		l.at++
		if (c == '<' || c == '>' || c == '!') && strings.HasPrefix(l.source[l.at:], "=") {
			l.at++
		}
		if text := l.source[start:l.at]; text != "!" {
			return lexeme{tokenOperator, text, start}, nil
		}
		return lexeme{}, mistake(start, `"!" is not a comparator: use != or NOT`)
	}
	for l.at < len(l.source) {
		r, size := utf8.DecodeRuneInString(l.source[l.at:])
		if unicode.IsSpace(r) || strings.ContainsRune(`(),<>=!"'`, r) || !value && (r == '.' || r == ':') {
			break
		}
		l.at += size
	}
	return lexeme{tokenText, l.source[start:l.at], start}, nil
}

// escapes maps the character after a backslash to the character that it represents.
var escapes = map[byte]rune{
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
	'\\': '\\', '\'': '\'', '"': '"', '`': '`', '?': '?', '*': literalStar,
}

// digits is the number of hexadecimal digits of a character code after a backslash and a letter.
var digits = map[byte]int{'x': 2, 'X': 2, 'u': 4, 'U': 8}

// quoted returns the text of the string that starts at the lexer's position.
func (l *lexer) quoted() (string, error) {
	start := l.at
	quote := l.source[start]
	var out strings.Builder
	for l.at++; l.at < len(l.source); {
		c := l.source[l.at]
		if c == quote {
			l.at++
			return out.String(), nil
		}
		if c != '\\' {
			out.WriteByte(c)
			l.at++
			continue
		}
		if l.at+1 == len(l.source) {
			break
		}
		c = l.source[l.at+1]
		if r, ok := escapes[c]; ok {
			out.WriteRune(r)
			l.at += 2
			continue
		}
		count, end := digits[c], l.at+2+digits[c]
		if count == 0 || end > len(l.source) {
			return "", mistake(l.at, `"\%c" is not an escape sequence: write a backslash twice`, c)
		}
		code, err := strconv.ParseUint(l.source[l.at+2:end], 16, 32)
		if err != nil || !utf8.ValidRune(rune(code)) || rune(code) == literalStar {
			return "", mistake(l.at, "%s is not a character code", l.source[l.at:end])
		}
		out.WriteRune(rune(code))
		l.at = end
	}
	return "", mistake(start, "the string is not closed")
}
