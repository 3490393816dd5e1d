package wordlist

import "regexp"

// A word is a phrase that the prose avoids, and what to write in its place.
type word struct {
	pattern *regexp.Regexp
	write   string
}

// avoid compiles a pattern of words: case does not matter, and a space stands for any white space,
// a line's end too.
func avoid(pattern, write string) word {
	spaces := regexp.MustCompile(` +`)
	return word{regexp.MustCompile(`(?i)\b(?:` + spaces.ReplaceAllString(pattern, `\s+`) + `)\b`), write}
}

// be is the verb in its forms.
const be = `(?:is|are|was|were|be|been|being)`

// strong are the phrases that fail the test.
var strong = []word{
	avoid(`whoever|whomever`, "name it: the caller, the client, the node"),
	avoid(`nobody|somebody|no-one|someone`, "name it: no caller, a client, an operator"),
	avoid(`so many`, "a noun: the number, the limit"),
	avoid(`those (?:that|who|which)`, "the noun: \"nodes that …\""),
	avoid(`that which|that what`, "a noun"),
	avoid(`told`, "notified, returned, reported; \"told apart\" is distinguished"),
	avoid(`unheard|heard`, "received, announced"),
	avoid(`by and by`, "gradually, eventually"),
	avoid(`at once`, "immediately; or concurrently, at a time, together"),
	avoid(`as it (?:is|lies|stands)`, "unchanged; or name the state"),
	avoid(be+` let (?:in|through|go|out)|lets? go`, "admitted, released"),
	avoid(be+` left alone`, "ejected, skipped, unchanged"),
	avoid(be+` looked (?:at|for)`, "inspected, searched"),
	avoid(`of (?:its|their|his|her|one's) own`, "a separate …, or leave it out"),
	avoid(`whatever`, "any, regardless of"),
	avoid(`mostly`, "usually"),
	avoid(`meanwhile`, "concurrently, in the meantime, while …"),
	avoid(`anew`, "again; recreated, rebuilt"),
	avoid(`for ever`, "forever, indefinitely"),
	avoid(`says?|said`, "returns, reports, states, shows"),
	avoid(`hears?`, "receives"),
	avoid(`kept`, "stored, retained, cached or open"),
	avoid(`go(?:es)? on`, "continues"),
	avoid(`but for`, "except"),
	avoid(`(?:is|are) to be`, "must be, will be"),
	avoid(`(?:is|are|was|were) away`, "unreachable, unavailable, lost"),
	avoid(`(?:its|own|last) word`, "report, announcement, state"),
	avoid(`ha(?:s|ve) had|(?:may|can|to) be had`, "plain tense"),
	avoid(`(?:attempts|bytes|calls|commands|entries|errors|events|files|`+
		`messages|ms|others|queries|reads|records|requests|rows|times|writes|[0-9]+(?:[.][0-9]+)?) an? (?:second|minute|hour)`, "per: \"calls per second\""),
	avoid(
		`(?:bytes|objects|files|[km]ib|[0-9]+(?:[.][0-9]+)?) an? (?:tenant|node|call|message|process|request|stream|row|event|command)`,
		"per: \"bytes per call\"",
	),
}

// advice are the phrases that a run with -v lists: there is usually a better way to write them.
var advice = []word{
	avoid(`keeps?`, "stores, retains, caches; or holds"),
	avoid(`one that|ones that|one which`, "the noun"),
	avoid(`the other`, "the noun"),
	avoid(`what (?:is|are|was|were|has|have)`, "a noun"),
	avoid(`that of|those of`, "the noun"),
	avoid(`ones? of`, "the noun"),
	avoid(`(?:is|are) gone`, "removed, stopped"),
	avoid(`beside`, "next to, in addition to; or name the place"),
	avoid(`nothing of`, "no …"),
	avoid(`hops?`, "span (timeline) or upstream call"),
	avoid(`an? [a-z]+ a (?:second|tenant|node|call|file|process)`, "per"),
}

// An exception allows a phrase in a place, for a reason.
type exception struct {
	path   string         // the file, or the folder with a "/" at its end
	phrase *regexp.Regexp // what is allowed there, in the line; nil: all
	reason string
}

func allowed(path, line, reason string) exception {
	e := exception{path: path, reason: reason}
	if line != "" {
		e.phrase = regexp.MustCompile(line)
	}
	return e
}

// exceptions are all of them. One that no file needs fails the test.
var exceptions = []exception{
	allowed("docs/glossary.md", "", "lists the names that are avoided"),
	allowed("internal/wordlist/", "", "lists the phrases that are avoided"),
}
