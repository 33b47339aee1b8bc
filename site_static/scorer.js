// @ts-check
// What the search puts first: a result of the book by its name, then a chapter whose title has the words that were asked for, a
// notebook after its chapter, and lists of references last. Sphinx's search asks it for the score of each find.

/** @type {(text: string) => string[]} */
const wordsOf = (text) => text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
const Asked = wordsOf(new URLSearchParams(location.search).get("q") ?? "");
/** @type {[RegExp, number][]} */
const Later = [
  [/^notebooks\//, 6],
  [/^book\/teaching/, 8],
  [/^book\/(notation|concordance|bibliography|map-of-results)$/, 8],
];

var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  /** @type {(find: [page: string, title: string, anchor: string, description: string, score: number, file: string]) => number} */
  score: ([page, title, , , score]) => {
    const words = wordsOf(title);
    const share = Asked.filter((word) => words.includes(word)).length / Math.max(Asked.length, 1);
    const later = Later.find(([pages]) => pages.test(page));
    return score + 20 * share + (share * Asked.length) / (1 + words.length) - (later ? later[1] : 0);
  },
};
