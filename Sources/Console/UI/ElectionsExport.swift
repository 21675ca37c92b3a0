extension Model {
    /// All elections as one JSON document: for a paper, a bug report, another program. Times in microseconds.
    var exportedElections: String {
        var out = JSONText()
        out.object {
            $0.member("format", "quarterdeck elections")
            $0.member("version", 1)
            $0.member("cluster", cluster.name)
            if let version = cluster.serverVersion { $0.member("server", version) }
            $0.array("nodes") { list in
                for member in cluster.members {
                    list.element { $0.object { $0.member("id", Format.hex(member.id)); $0.member("name", member.name) } }
                }
            }
            $0.array("elections") { list in
                for election in elections.elections { list.element { $0.object { write(election, to: &$0) } } }
            }
        }
        return out.text + "\n"
    }

    private func write(_ election: Election, to out: inout JSONText) {
        func name(_ id: UInt64?) -> String? { id.map { id in cluster.members.first { $0.id == id }?.name ?? Format.hex(id) } }
        out.member("number", Int64(election.number))
        out.member("atMicroseconds", election.lostAt)
        out.member("fromTerm", election.fromTerm.map { Int64(clamping: $0) })
        out.member("term", Int64(clamping: election.term))
        out.member("previousLeader", name(election.previous))
        out.member("leader", name(election.leader))
        out.member("cause", election.causeText)
        out.member("exact", !election.isOutline)
        out.member("toleranceMicroseconds", election.toleranceMilliseconds.map { $0 * 1_000 })
        out.member("votes", election.votes > 0 ? Int64(election.votes) : nil)
        out.member("voters", election.voters > 0 ? Int64(election.voters) : nil)
        out.member("splitVotes", Int64(election.splitVotes))
        out.object("phases") { for phase in Election.Phase.allCases { $0.member(phase.key, election.duration(phase)) } }
        out.member("noLeader", election.noLeader)
        out.member("untilFirstCommit", election.committedAt.map { $0 - election.lostAt })
        if let clients = election.clients {
            out.object("clients") {
                $0.member("gap", clients.gap)
                $0.member("writes", Int64(clients.writes))
                $0.member("failed", Int64(clients.failed))
                $0.member("retried", Int64(clients.retried))
            }
        }
        if let check = election.check {
            out.object("acknowledgedWrites") {
                $0.member("checked", Int64(check.checked))
                $0.member("violations", Int64(check.lost))
            }
        }
        out.member("remark", election.remark)
        out.array("steps") { list in
            for step in elections.steps(of: election) {
                list.element { $0.object { $0.member("after", step.at - election.lostAt); $0.member("what", step.text) } }
            }
        }
    }
}

/// Writes JSON, two blanks an indent. Members that are nil are left out.
struct JSONText {
    private(set) var text = ""
    private var depth = 0
    private var isFirst = true

    private mutating func next() {
        if !isFirst { text += "," }
        if depth > 0 { text += "\n" + String(repeating: "  ", count: depth) }
        isFirst = false
    }

    private mutating func nest(_ open: String, _ close: String, _ body: (inout JSONText) -> Void) {
        text += open
        depth += 1
        isFirst = true
        body(&self)
        depth -= 1
        if !isFirst { text += "\n" + String(repeating: "  ", count: depth) }
        isFirst = false
        text += close
    }

    mutating func object(_ body: (inout JSONText) -> Void) { nest("{", "}", body) }
    mutating func object(_ name: String, _ body: (inout JSONText) -> Void) { key(name); nest("{", "}", body) }
    mutating func array(_ name: String, _ body: (inout JSONText) -> Void) { key(name); nest("[", "]", body) }
    mutating func element(_ body: (inout JSONText) -> Void) { next(); body(&self) }

    private mutating func key(_ name: String) {
        next()
        text += JSONText.quoted(name) + ": "
    }

    mutating func member(_ name: String, _ value: Int64?) {
        guard let value else { return }
        key(name)
        text += String(value)
    }

    mutating func member(_ name: String, _ value: Bool) {
        key(name)
        text += value ? "true" : "false"
    }

    mutating func member(_ name: String, _ value: String?) {
        guard let value else { return }
        key(name)
        text += JSONText.quoted(value)
    }

    static func quoted(_ value: String) -> String {
        var result = "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case let scalar where scalar.value < 0x20: result += "\\u00" + Format.hexByte(UInt8(scalar.value))
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
