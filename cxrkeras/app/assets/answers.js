// What answers say, in which order and how many they are. Nothing is drawn here and nothing is kept.
"use strict";
(() => {
  const displayName = (label) => label.replaceAll("_", " ");
  const formatShare = (share) =>
    share < 0.001 ? "<0.1 %" : share > 0.999 ? ">99.9 %" : `${(100 * share).toFixed(1)} %`;
  const formatCount = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;

  // A result is withheld while its image may not be a chest radiograph and nobody has overridden that.
  const isWithheld = (result) => Boolean(result.warnings?.length) && !result.isOverridden;
  const isAnswered = (result) => Boolean(result.labels || result.problem);
  const labelsOf = (result) => (isWithheld(result) ? [] : result.labels ?? []);
  const findingsOf = (result, noFinding) => labelsOf(result).filter((row) => row.label !== noFinding);

  // That nothing was found is not a finding and has no rank among them: it stands last.
  const rankLabels = (result, noFinding) =>
    [...labelsOf(result)].sort((a, b) => (a.label === noFinding) - (b.label === noFinding));

  const KINDS = {
    all: () => true,
    found: (result, noFinding) => findingsOf(result, noFinding).some((row) => row.is_found),
    warned: (result) => Boolean(result.warnings?.length),
    problem: (result) => Boolean(result.problem),
  };
  const SORTS = {
    order: () => 0,
    name: (result) => result.name.toLowerCase(),
    found: (result, noFinding) => -findingsOf(result, noFinding).filter((row) => row.is_found).length,
    highest: (result, noFinding) => -Math.max(-1, ...findingsOf(result, noFinding).map((row) => row.probability)),
  };

  /** The results whose name contains `text` and that are of a kind, sorted.
   *
   * kind: one of KINDS, or `above:<label>` for a label above its threshold; sort: one of SORTS. A withheld result is
   * neither found nor sorted by its labels.
   */
  function chooseResults(results, { text, kind, sort }, noFinding) {
    const isAbove = (result) => labelsOf(result).some((row) => row.is_found && kind === `above:${row.label}`);
    const isOfKind = KINDS[kind] ?? isAbove;
    const wanted = text.toLowerCase();
    return results
      .filter((result) => result.name.toLowerCase().includes(wanted) && isOfKind(result, noFinding))
      .map((result) => ({ result, key: SORTS[sort](result, noFinding) }))
      .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
      .map(({ result }) => result);
  }

  /** How many of the files are answered. */
  function describeProgress(results) {
    if (!results.length) return "";
    const answered = results.filter(isAnswered).length, failed = results.filter(KINDS.problem).length;
    const text = `${answered.toLocaleString("en")} of ${formatCount(results.length, "file")} answered`;
    return failed ? `${text}, ${failed.toLocaleString("en")} of them not readable` : text;
  }

  window.cxr = {
    ...window.cxr,
    chooseResults, describeProgress, displayName, formatCount, formatShare, isAnswered, isWithheld, rankLabels,
  };
})();
