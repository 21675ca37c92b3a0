/// How an event of the cluster reads: a glyph, its colour and one line.
struct EventText {
    var glyph: Unicode.Scalar
    var slot: Slot
    /// From the fewest columns to all that is known.
    var brief: String
    var short: String
    var long: String

    init(_ event: ClusterEvent) {
        func make(_ glyph: Unicode.Scalar, _ slot: Slot, _ short: String, _ long: String? = nil) -> (Unicode.Scalar, Slot, String, String) {
            (glyph, slot, short, long ?? short)
        }
        brief = ""
        (glyph, slot, short, long) = switch event.kind {
        case .elected(let leader, let previous, let from, let term, let gap, let tolerance):
            EventText.elected(leader, previous, from, term, gap, tolerance)
        case .leaderLost(let previous, let term):
            make("✕", .warn, "no leader: \(previous) of term \(term) is gone", "no leader: \(previous) of term \(term) is gone, writes wait")
        case .campaign(let member, let term, let isPreVote):
            isPreVote ? make("◌", .candidate, "\(member) asks for pre-votes, term \(term)") : make("╌", .candidate, "\(member) stands for term \(term)")
        case .memberDown(let member, let reason, let byYou, let wasLeader):
            make("✕", .bad, "\(member) \(reason)\(byYou ? " by you" : "")\(wasLeader ? " (was leader)" : "")")
        case .memberUp(let member, let after):
            make("●", .ok, "\(member) is up" + (after.map { " after \(Format.span(milliseconds: $0))" } ?? ""))
        case .paused(let member): make("‖", .warn, "\(member) paused by you")
        case .resumed(let member): make("●", .ok, "\(member) runs again")
        case .isolated(let member): make("≠", .warn, "\(member) cut off from its peers by you")
        case .rejoined(let member): make("●", .ok, "\(member) is back among its peers")
        case .transferRequested(let from, let to): make("▸", .accent, "leadership \(from.map { "of \($0) " } ?? "")to \(to) asked for by you")
        case .alarm(let member, let kind, let isRaised):
            isRaised ? make("▲", .bad, "alarm \(kind) on \(member)") : make("✓", .ok, "alarm \(kind) on \(member) is off")
        case .compacted(let revision): make("▣", .dim, "compacted to revision \(Format.count(revision))")
        case .leaseExpired(let lease, let keys): make("○", .dim, "lease \(Format.hex(lease)) expired, \(Format.plural(Int64(keys), "key")) gone")
        case .workload(let isOn): make("▸", .accent, isOn ? "workload started by you" : "workload stopped by you")
        case .faultOn(let text): make("▲", .warn, text)
        case .faultOff(let text): make("▽", .ok, text)
        case .note(let text, let isBad): make(isBad ? "▲" : "·", isBad ? .warn : .dim, text)
        }
        brief = short
        // Where there is little room the figures come first: who, since which term, how long without writes.
        if case .elected(let leader, let previous, _, let term, let gap?, _) = event.kind {
            let change = previous.flatMap { $0 == leader ? nil : "\($0) → \(leader)" } ?? leader
            brief = "\(change) t\(term), no writes \(Format.span(milliseconds: gap))"
        }
    }

    private static func elected(_ leader: String, _ previous: String?, _ from: UInt64?, _ term: UInt64, _ gap: Int64?, _ tolerance: Int64?) -> (Unicode.Scalar, Slot, String, String) {
        let terms = from.map { "\($0)→\(term)" } ?? String(term)
        let change = previous.flatMap { $0 == leader ? nil : ", \($0) → \(leader)" } ?? ""
        let around = tolerance.map { " ±\(Format.span(milliseconds: $0))" } ?? ""
        let short = "\(leader) elected term \(terms)\(change)"
        guard let gap else { return ("♛", .leader, short, short) }
        return ("♛", .leader, "\(short), no writes \(Format.span(milliseconds: gap))\(around)",
                "\(short), writes unavailable \(Format.span(milliseconds: gap))\(around)")
    }

    /// Spans that fit `width` after the time stamp.
    func spans(width: Int) -> [Span] {
        let text = [long, short].first { $0.cellWidth + 2 <= width } ?? brief
        return [Span("\(glyph) ", slot), Span(text, slot == .dim ? .dim : .text)]
    }
}
