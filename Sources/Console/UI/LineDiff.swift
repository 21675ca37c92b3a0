/// Differences between texts by lines.
enum LineDiff {
    enum Line: Hashable, Sendable {
        case same(String)
        case removed(String)
        case added(String)
    }

    /// Texts with more lines than this (after equal heads and tails are set aside) are taken as replaced as a whole: the table below
    /// is quadratic.
    static let tableLimit = 2_000

    static func lines(_ bytes: [UInt8]) -> [String] {
        let document = ValueDocument.isJSON(bytes) ? (try? JSON.formatted(bytes)) : nil
        let text = document.map { Array($0.utf8) } ?? bytes
        return text.split(separator: 0x0a, omittingEmptySubsequences: false).map { Format.text($0, limit: 2_000) }
    }

    /// For each line of `old` the line of `new` it is matched with, ascending.
    static func matches(_ old: [String], _ new: [String]) -> [(old: Int, new: Int)] {
        var head = 0
        while head < old.count, head < new.count, old[head] == new[head] { head += 1 }
        var tail = 0
        while tail < old.count - head, tail < new.count - head, old[old.count - 1 - tail] == new[new.count - 1 - tail] { tail += 1 }
        var result = (0..<head).map { (old: $0, new: $0) }
        let a = old.count - head - tail, b = new.count - head - tail
        if a > 0, b > 0, a <= tableLimit, b <= tableLimit {
            // Longest common subsequence, table from the end.
            var table = [Int32](repeating: 0, count: (a + 1) * (b + 1))
            for i in stride(from: a - 1, through: 0, by: -1) {
                for j in stride(from: b - 1, through: 0, by: -1) {
                    table[i * (b + 1) + j] = old[head + i] == new[head + j] ? table[(i + 1) * (b + 1) + j + 1] + 1
                        : max(table[(i + 1) * (b + 1) + j], table[i * (b + 1) + j + 1])
                }
            }
            var i = 0, j = 0
            while i < a, j < b {
                if old[head + i] == new[head + j] {
                    result.append((old: head + i, new: head + j))
                    i += 1
                    j += 1
                } else if table[(i + 1) * (b + 1) + j] >= table[i * (b + 1) + j + 1] { i += 1 } else { j += 1 }
            }
        }
        for k in 0..<tail { result.append((old: old.count - tail + k, new: new.count - tail + k)) }
        return result
    }

    static func diff(_ old: [String], _ new: [String]) -> [Line] {
        var result: [Line] = []
        var i = 0, j = 0
        for match in matches(old, new) + [(old: old.count, new: new.count)] {
            while i < match.old { result.append(.removed(old[i])); i += 1 }
            while j < match.new { result.append(.added(new[j])); j += 1 }
            if i < old.count { result.append(.same(old[i])) }
            i += 1
            j += 1
        }
        return result
    }

    /// One short line that tells what changed between two values: `"ttl": 3 → 30`, `removed "canary"`, `+8 B`.
    static func summary(_ old: [UInt8], _ new: [UInt8]) -> String {
        if old == new { return "same value written again" }
        guard old.count < 16_384, new.count < 16_384, Format.isText(old), Format.isText(new) else { return "binary, \(new.count >= old.count ? "+" : "−")\(abs(new.count - old.count)) B" }
        let changes = diff(lines(old), lines(new)).filter { if case .same = $0 { false } else { true } }
        let removed = changes.compactMap { if case .removed(let line) = $0 { trimmed(line) } else { nil } }
        let added = changes.compactMap { if case .added(let line) = $0 { trimmed(line) } else { nil } }
        // A JSON line that only lost or got its comma is no change.
        let goneLines = removed.filter { !added.contains($0) }, freshLines = added.filter { !removed.contains($0) }
        if goneLines.count == 1, freshLines.count == 1 {
            let a = goneLines[0], b = freshLines[0]
            if let cut = a.range(ofKey: b) { return "\(a[..<cut]): \(a[cut...].dropFirst(2)) → \(b[cut...].dropFirst(2))" }
            return "\(a) → \(b)"
        }
        if freshLines.isEmpty, let first = goneLines.first { return "removed \(first)" + (goneLines.count > 1 ? " +\(goneLines.count - 1)" : "") }
        if goneLines.isEmpty, let first = freshLines.first { return "added \(first)" + (freshLines.count > 1 ? " +\(freshLines.count - 1)" : "") }
        return "−\(goneLines.count) +\(freshLines.count) lines"
    }

    private static func trimmed(_ line: String) -> String {
        var text = line.drop { $0 == " " }
        if text.last == "," { text = text.dropLast() }
        return String(text)
    }
}

extension String {
    /// Where `"name"` ends, when this line and `other` are members of the same name.
    fileprivate func range(ofKey other: String) -> String.Index? {
        guard first == "\"", let colon = firstRange(of: "\": ") , other.hasPrefix(self[..<colon.upperBound]) else { return nil }
        return index(after: colon.lowerBound)
    }

    private func firstRange(of piece: String) -> Range<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(piece) { return start..<index(start, offsetBy: piece.count) }
            start = index(after: start)
        }
        return nil
    }
}

/// Two edits of one base put together by lines; where both changed the same place, mine is kept.
struct ThreeWayMerge: Hashable, Sendable {
    var base: [String]
    var mine: [String]
    var theirs: [String]
    /// The result, with mine in conflicts.
    private(set) var merged: [String] = []
    private(set) var conflicts = 0
    /// Places where only theirs changed.
    private(set) var clean = 0

    init(base: [String], mine: [String], theirs: [String]) {
        self.base = base
        self.mine = mine
        self.theirs = theirs
        let toMine = LineDiff.matches(base, mine), toTheirs = LineDiff.matches(base, theirs)
        var mineOf = [Int?](repeating: nil, count: base.count), theirsOf = mineOf
        for match in toMine { mineOf[match.old] = match.new }
        for match in toTheirs { theirsOf[match.old] = match.new }
        var b = 0, m = 0, t = 0
        // Lines of the base that both kept divide the texts into pieces.
        for anchor in 0...base.count {
            let mineAnchor: Int, theirsAnchor: Int
            if anchor == base.count { (mineAnchor, theirsAnchor) = (mine.count, theirs.count) } else {
                guard let x = mineOf[anchor], let y = theirsOf[anchor] else { continue }
                (mineAnchor, theirsAnchor) = (x, y)
            }
            let basePiece = Array(base[b..<anchor]), minePiece = Array(mine[m..<mineAnchor]), theirsPiece = Array(theirs[t..<theirsAnchor])
            if minePiece == basePiece {
                if theirsPiece != basePiece { clean += 1 }
                merged += theirsPiece
            } else {
                if theirsPiece != basePiece, theirsPiece != minePiece { conflicts += 1 }
                merged += minePiece
            }
            if anchor < base.count { merged.append(base[anchor]) }
            (b, m, t) = (anchor + 1, mineAnchor + 1, theirsAnchor + 1)
        }
    }
}
