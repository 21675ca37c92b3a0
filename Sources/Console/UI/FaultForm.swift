/// The figures of a fault, typed in: a few fields, an end time, and what will come of it.
struct FaultForm: Hashable, Sendable {
    enum FieldID: Hashable, Sendable { case node, from, to, way, groups, what, added, delay, jitter, loss, duplicate, rate, jump, drift, duration }

    enum Input: Hashable, Sendable {
        case text(TextField)
        case choice([String], Int)
    }

    struct Field: Hashable, Sendable {
        var id: FieldID
        var label: String
        var input: Input
        var hint: String
    }

    /// What is wrong, and where.
    struct Problem: Error, Hashable {
        var field: FieldID
        var text: String
    }

    static let disks: [(title: String, kind: FaultKind)] = [("slow fsync", .diskSlow), ("stuck fsync", .diskStuck), ("full", .diskFull), ("I/O errors", .diskBroken)]
    static let clocks: [(title: String, kind: FaultKind)] = [("jump", .clockJump), ("drift", .clockDrift)]
    static let anyNode = "all"

    var act: FaultAct
    var fields: [Field]
    var focus: Int
    /// The focused text is as it was offered: typing replaces it.
    var isFresh = true
    var problem: Problem?

    /// - Parameters:
    ///   - node, peer: what is selected in the matrix; both index `members`.
    init(_ act: FaultAct, members: [MemberState], node: Int, peer: Int?, support: FaultSupport) {
        self.act = act
        let names = members.map(\.name)
        func text(_ id: FieldID, _ label: String, _ start: String, _ hint: String) -> Field { Field(id: id, label: label, input: .text(TextField(start)), hint: hint) }
        func choice(_ id: FieldID, _ label: String, _ list: [String], _ index: Int, _ hint: String) -> Field {
            Field(id: id, label: label, input: .choice(list, min(max(0, index), max(0, list.count - 1))), hint: hint)
        }
        func firstOffered(_ list: [(title: String, kind: FaultKind)]) -> Int { list.firstIndex { support.reason($0.kind) == nil } ?? 0 }
        let nodeField = choice(.node, "node", names, node, "←→ another node")
        var focused: FieldID = .duration
        switch act {
        case .kill, .stop, .pause, .tear: fields = [nodeField]
        case .cut, .flaky:
            let some = act == .flaky ? names + [FaultForm.anyNode] : names
            fields = [choice(.from, "from", some, node, "who sends"), choice(.to, "to", names + [FaultForm.anyNode], peer ?? names.count, "who hears nothing; all: every other node"),
                      choice(.way, "way", ["both ways", "one way"], peer == nil ? 0 : 1, "←→ one way, or both")]
            if act == .flaky {
                fields[1].hint = "who hears it late, or not"
                fields += [text(.delay, "delay", "40ms", "time added to each message"), text(.jitter, "jitter", "5ms", "the delay varies by up to this much"), text(.loss, "loss", "0%", "share of messages that vanish"),
                           text(.duplicate, "duplicate", "0%", "share of messages that arrive twice"), text(.rate, "rate", "", "bytes a second: 64k, 1M; empty: no limit")]
                focused = .delay
            }
        case .groups:
            let others = names.indices.filter { $0 != node }.map { names[$0] }
            fields = [text(.groups, "groups", names.isEmpty ? "" : "\(names[node]) | \(others.joined(separator: " "))", "names, groups parted by |; nodes in none keep their links")]
            focused = .groups
        case .disk:
            fields = [nodeField, choice(.what, "what", FaultForm.disks.map(\.title), firstOffered(FaultForm.disks), "←→ what is wrong with it"), text(.added, "added", "20ms", "every fsync takes this much longer")]
            focused = .added
        case .clock:
            fields = [nodeField, choice(.what, "what", FaultForm.clocks.map(\.title), firstOffered(FaultForm.clocks), "←→ one leap, or a wrong pace"),
                      text(.jump, "by", "+5s", "a leap, once; with - only the wall clock goes back"), text(.drift, "by", "+100ppm", "too fast by this; negative: too slow")]
            focused = .what
        }
        fields.append(text(.duration, "for", "", "30s, 2m, 500ms, then it heals by itself; empty: until healed"))
        focus = 0
        focus = fields.firstIndex { $0.id == focused && isUsed($0.id) } ?? 0
    }

    subscript(_ id: FieldID) -> Field? { fields.first { $0.id == id } }

    /// Index chosen in a choice field.
    func choice(_ id: FieldID) -> Int { if case .choice(_, let index)? = self[id]?.input { index } else { 0 } }
    func text(_ id: FieldID) -> String { if case .text(let field)? = self[id]?.input { field.text.trimmed } else { "" } }

    /// Fields that count with the choices made.
    func isUsed(_ id: FieldID) -> Bool {
        switch id {
        case .added: choice(.what) == 0
        case .jump: choice(.what) == 0
        case .drift: choice(.what) == 1
        default: true
        }
    }

    var used: [Int] { fields.indices.filter { isUsed(fields[$0].id) } }

    // MARK: Keys

    /// False when the key means nothing here.
    mutating func handle(_ key: KeyPress) -> Bool {
        switch key.code {
        case .tab, .down: move(1)
        case .backTab, .up: move(-1)
        default:
            switch fields[focus].input {
            case .choice(let list, let index):
                switch key.code {
                case .left, .character("h"): fields[focus].input = .choice(list, (index + list.count - 1) % max(1, list.count))
                case .right, .character("l"), .character(" "): fields[focus].input = .choice(list, (index + 1) % max(1, list.count))
                case .character(let character):
                    // The first letters of a choice pick it; nodes are often called n1, n2 ...
                    guard let found = list.firstIndex(where: { $0.hasPrefix(String(character)) || $0.hasSuffix(String(character)) }) else { return false }
                    fields[focus].input = .choice(list, found)
                default: return false
                }
                problem = nil
            case .text(var field):
                if isFresh, case .character = key.code, key.modifiers.isEmpty { field = TextField() }
                guard field.handle(key) else { return false }
                isFresh = false
                fields[focus].input = .text(field)
                problem = nil
            }
        }
        return true
    }

    mutating func move(_ step: Int) {
        isFresh = true
        let order = used
        guard let place = order.firstIndex(of: focus) else { return focus = order.first ?? 0 }
        focus = order[(place + step + order.count) % order.count]
    }

    mutating func insert(_ piece: String) {
        guard case .text(var field) = fields[focus].input else { return }
        if isFresh { field = TextField() }
        isFresh = false
        field.insert(piece)
        fields[focus].input = .text(field)
        problem = nil
    }

    // MARK: What it says

    /// The faults and when they end.
    func faults(_ members: [MemberState]) throws(Problem) -> (faults: [Fault], milliseconds: Int64?) {
        guard !members.isEmpty else { throw Problem(field: .node, text: "no node yet") }
        let duration = try self.duration()
        func member(_ id: FieldID) -> UInt64? { members.indices.contains(choice(id)) ? members[choice(id)].id : nil }
        let node = member(.node) ?? members[0].id
        switch act {
        case .kill: return ([.kill(node)], duration)
        case .stop: return ([.stop(node)], duration)
        case .pause: return ([.pause(node)], duration)
        case .tear: return ([.tornTail(node)], duration)
        case .cut:
            let from = member(.from) ?? members[0].id
            guard let to = member(.to) else {
                // Everything it sends, or all of it.
                if choice(.way) == 0 { return ([.isolate(from)], duration) }
                return (members.filter { $0.id != from }.map { .cut(from: from, to: $0.id) }, duration)
            }
            if from == to { throw Problem(field: .to, text: "a node has no link to itself") }
            return ([choice(.way) == 0 ? .partition([[from], [to]]) : .cut(from: from, to: to)], duration)
        case .groups: return ([.partition(try FaultForm.groups(text(.groups), members))], duration)
        case .flaky:
            let from = member(.from), to = member(.to)
            if let from, from == to { throw Problem(field: .to, text: "a node has no link to itself") }
            let wire = try self.wire()
            if choice(.way) == 0, from != nil || to != nil { return ([.wire(from: from, to: to, wire), .wire(from: to, to: from, wire)], duration) }
            return ([.wire(from: from, to: to, wire)], duration)
        case .disk:
            switch choice(.what) {
            case 0:
                let added = try milliseconds(.added, "added", 1...60_000)
                return ([.disk(node, .slow(milliseconds: Int(added)))], duration)
            case 1: return ([.disk(node, .stuck)], duration)
            case 2: return ([.disk(node, .full)], duration)
            default: return ([.disk(node, .broken)], duration)
            }
        case .clock:
            if choice(.what) == 0 {
                let typed = text(.jump)
                let digits = typed.first == "+" || typed.first == "-" || typed.first == "−" ? String(typed.dropFirst()) : typed
                guard let size = FaultText.milliseconds(of: digits), size > 0, size <= 31_536_000_000 else { throw Problem(field: .jump, text: "by: a time with its sign, like +5s or -2m") }
                return ([.clock(node, .jump(milliseconds: typed.first == "-" || typed.first == "−" ? -Int(size) : Int(size)))], duration)
            }
            let digits = text(.drift).filter { !$0.isLetter && $0 != " " && $0 != "+" }
            guard let ppm = Int(digits), ppm != 0, (-500_000...500_000).contains(ppm) else { throw Problem(field: .drift, text: "by: parts per million, -500,000 to 500,000, not 0") }
            return ([.clock(node, .drift(partsPerMillion: ppm))], duration)
        }
    }

    private func duration() throws(Problem) -> Int64? {
        if text(.duration).isEmpty { return nil }
        guard let value = FaultText.milliseconds(of: text(.duration)) else { throw Problem(field: .duration, text: "for: a time like 30s, 2m or 500ms, or nothing") }
        guard (100...86_400_000).contains(value) else { throw Problem(field: .duration, text: "for: 100ms to 24h") }
        return value
    }

    private func milliseconds(_ id: FieldID, _ label: String, _ range: ClosedRange<Double>) throws(Problem) -> Double {
        let typed = text(id)
        // A bare number is milliseconds here.
        let value = Double(typed) ?? FaultText.milliseconds(of: typed).map(Double.init)
        guard let value, range.contains(value) else { throw Problem(field: id, text: "\(label): \(Format.count(Int(range.lowerBound))) to \(Format.count(Int(range.upperBound))) ms, like 20ms or 1s") }
        return value
    }

    private func percent(_ id: FieldID, _ label: String) throws(Problem) -> Double {
        let typed = text(id).filter { $0 != "%" && $0 != " " }
        if typed.isEmpty { return 0 }
        guard let value = Double(typed), (0...100).contains(value) else { throw Problem(field: id, text: "\(label): 0 to 100 %") }
        return value
    }

    private func wire() throws(Problem) -> WireFault {
        var wire = WireFault()
        wire.delayMilliseconds = text(.delay).isEmpty ? 0 : try milliseconds(.delay, "delay", 0...60_000)
        wire.jitterMilliseconds = text(.jitter).isEmpty ? 0 : try milliseconds(.jitter, "jitter", 0...60_000)
        if wire.delayMilliseconds == 0 { wire.jitterMilliseconds = 0 }
        if wire.jitterMilliseconds > wire.delayMilliseconds { throw Problem(field: .jitter, text: "jitter: at most the delay, \(FaultText.number(wire.delayMilliseconds)) ms") }
        wire.lossPercent = try percent(.loss, "loss")
        wire.duplicatePercent = try percent(.duplicate, "duplicate")
        if !text(.rate).isEmpty {
            guard let rate = FaultForm.bytes(text(.rate)), (100...10_000_000_000).contains(rate) else { throw Problem(field: .rate, text: "rate: bytes a second, like 900, 64k or 1M, at least 100") }
            wire.bytesPerSecond = rate
        }
        if wire == WireFault() { throw Problem(field: .delay, text: "nothing is set: give a delay, a loss, duplicates or a rate") }
        return wire
    }

    /// `64k`, `1.5M`, `900`.
    static func bytes(_ text: String) -> Int? {
        var digits = text.lowercased().filter { $0 != " " }
        for ending in ["/s", "b"] where digits.hasSuffix(ending) { digits.removeLast(ending.count) }
        var factor = 1.0
        if let unit = digits.last, let scale: Double = ["k": 1_000, "m": 1_000_000, "g": 1_000_000_000][unit] {
            factor = scale
            digits.removeLast()
        }
        guard let value = Double(digits), value >= 0, value * factor < 1e15 else { return nil }
        return Int(value * factor)
    }

    /// `n1 n2 | n3`.
    static func groups(_ text: String, _ members: [MemberState]) throws(Problem) -> [[UInt64]] {
        func wrong(_ message: String) -> Problem { Problem(field: .groups, text: "groups: \(message)") }
        var groups: [[UInt64]] = []
        var seen: Set<UInt64> = []
        for part in text.split(separator: "|", omittingEmptySubsequences: false) {
            var group: [UInt64] = []
            for word in part.split(whereSeparator: { $0 == " " || $0 == "," }) {
                guard let member = members.first(where: { $0.name == word }) else { throw wrong("\(word) is not a node; nodes are \(members.map(\.name).joined(separator: " "))") }
                guard seen.insert(member.id).inserted else { throw wrong("\(word) is named twice") }
                group.append(member.id)
            }
            if group.isEmpty { throw wrong(text.contains("|") ? "a side of | is empty" : "at least two, parted by |") }
            groups.append(group)
        }
        if groups.count < 2 { throw wrong("at least two, parted by |, like \(members.prefix(1).map(\.name).joined()) | \(members.dropFirst().map(\.name).joined(separator: " "))") }
        return groups
    }
}

extension String {
    var trimmed: String {
        var text = Substring(self)
        while text.first == " " { text.removeFirst() }
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
